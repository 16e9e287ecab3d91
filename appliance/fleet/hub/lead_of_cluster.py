"""Has this host take part in deciding which of several hubs leads, while the hubs are the same."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from appliance.domain.errors import CutOff, FleetError, StoreUnavailable
from appliance.fleet.claims.kv import KvRecords
from appliance.fleet.hub.cluster import COPIES
from appliance.fleet.hub.config import LEAD_MB
from appliance.fleet.hub.lead import LeadRecord
from appliance.fleet.hub.leading import BUCKET, Leading, appoint
from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    from appliance.domain.clock import Clock
    from appliance.fleet.hub.hub_server import HubServer
    from appliance.fleet.hub.progress import StoreProgress
    from appliance.fleet.link.link import NatsLink

log = logging.getLogger(__name__)

LOOK_S = 0.5


class LeadOfCluster:
    """Is this host's part in it. `cluster`: since when the hubs are these. `link` is closed with it."""

    def __init__(self, cluster: int, server: HubServer, link: NatsLink, progress: StoreProgress, clock: Clock) -> None:
        self.cluster = cluster
        self.link = link
        self._server = server
        self._node_id = node_id = server.facts.node_id
        self._progress = progress
        self._records = KvRecords(link.jetstream, BUCKET, None, COPIES, LEAD_MB * 1024 * 1024)
        self.leading = Leading(node_id, self._records, progress, clock)
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self._run(), name="which hub leads")

    async def _run(self) -> None:
        await self._server.wait_listening()
        self.link.start()
        # The record of the hubs of before, whose cluster the server leaves at any moment, says nothing of these.
        while not self._stopping.is_set() and not (self._goes_by_these() and await self._appointed()):
            await wait(self._stopping, LOOK_S)
        await self.leading.run(self._stopping)

    def _goes_by_these(self) -> bool:
        return self._server.upkeep.goes_by(self.cluster)

    async def _appointed(self) -> bool:
        """Makes the record that says who leads, if there is none, on the host that is the hub by its store."""
        try:
            first = await self._progress.first()
            if first is None:
                return True  # the record is another's to make
            await appoint(self._records, LeadRecord(self._node_id, first.gen, first))
        except (CutOff, FleetError, StoreUnavailable) as error:
            log.debug("no hub is appointed yet: %s", error)
            return False
        return True

    @property
    def has_ended(self) -> bool:
        """Tells whether a fault has ended it."""
        return self._running is not None and self._running.done()

    async def close(self) -> None:
        self._stopping.set()
        if self._running is not None:
            await ended(self._running)
        await self.link.close()


async def ended(task: asyncio.Task[None]) -> None:
    """Waits for the end of a task, and logs what has ended it."""
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s has ended by a fault, and is started anew if it is needed", task.get_name(), exc_info=error)
