"""Keeps the ledger's records of limits few: deletes those that are needed no more."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from appliance.fleet.link.looking import look_until

if TYPE_CHECKING:
    from appliance.domain.clock import Clock
    from appliance.fleet.claims.records import ClaimRecords, KeptRecord
    from appliance.fleet.quota.lease_ledger import LeaseLedger

log = logging.getLogger(__name__)

LOOK_S = 1.0
PAGE = 500  # records that one look reads, and deletes at most
AT_ONCE = 4
WALK_MS = 3_600_000  # from one reading of all records to the next


class LeaseUpkeep:
    """Reads all records every hour, a page a second. Several hubs may do so at once: each record goes by its
    revision."""

    def __init__(self, records: ClaimRecords, ledger: LeaseLedger, clock: Clock) -> None:
        self._records = records
        self._ledger = ledger
        self._clock = clock
        self._after = 0  # the revision up to which the walk has come
        self._began_ms: int | None = None  # CLOCK_BOOTTIME
        self._walking = False
        self._deleted = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Looks until `stopping`."""
        await look_until(stopping, self.look, LOOK_S, log, "the hub's records of limits are not kept few")

    async def look(self) -> None:
        """Looks at the next page, if it is time. Raises FleetError or StoreUnavailable: the page is read again."""
        now_ms = self._clock.now().boot_ms
        if not self._walking:
            if self._began_ms is not None and now_ms - self._began_ms < WALK_MS:
                return
            await self._records.name()  # makes the bucket, where there is none yet
            self._walking, self._began_ms, self._after, self._deleted = True, now_ms, 0, 0
        page = await self._records.page(self._after, PAGE)
        if not page:
            self._walking = False
            if self._deleted:
                log.info("deleted %d records of limits that are needed no more", self._deleted)
            return
        outdated = await self._ledger.outdated(page)
        for first in range(0, len(outdated), AT_ONCE):
            await asyncio.gather(*map(self._delete, outdated[first : first + AT_ONCE]))
        self._after = page[-1].revision

    async def _delete(self, record: KeptRecord) -> None:
        if await self._records.delete(record.key, record.revision):
            self._deleted += 1
