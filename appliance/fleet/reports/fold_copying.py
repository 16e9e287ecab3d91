"""Keeps on a standby a copy of what exits have told the hub: it is the hub's fold once this host leads.

What exits tell anew it would have from their streams and by their digests. Of exits that are gone, and of sessions that
have left the streams, the hub's store alone knows.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import astuple

from appliance.domain.errors import CutOff, FleetError, NotAnswered
from appliance.fleet.accounts.sync_messages import LedgerRefusal
from appliance.fleet.link.looking import look_until
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.reports.copy_messages import CopiedNodes, CopyRequest, subject
from appliance.fleet.reports.fold import AT_A_TIME, DISK_LEFT, merge_reports
from appliance.fleet.reports.reports import Digest, Sums, UsageAnswer, UsageRequest
from appliance.store.queries import fleet_fold

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from appliance.fleet.link.wire import HubLink
    from appliance.fleet.reports.copy_messages import ToldNode
    from appliance.store.database import Store
    from appliance.store.queries.fleet_reports import MonthSums

T = TypeVar("T", CopiedNodes, Digest, UsageAnswer)

LOOK_S = 5.0
FAR = 1_000  # batches: what is further behind is read by months, a page of which costs the hub less
ANSWER_S = 10.0

log = logging.getLogger(__name__)


class FoldCopying:
    """Copies while this host stands by. `disk_left`: bytes, for the store."""

    def __init__(self, node_id: str, link: HubLink, store: Store, disk_left: Callable[[], int]) -> None:
        self._subject = subject(node_id)
        self._link = link
        self._store = store
        self._disk_left = disk_left
        self._has: dict[str, int] = {}
        self._compared: dict[str, ToldNode] = {}  # what each exit had told when the sums were the same

    async def run(self, stopping: asyncio.Event) -> None:
        """Copies until `stopping`."""
        await look_until(stopping, self.look, LOOK_S, log, "what exits tell the hub is not copied")

    async def look(self) -> None:
        """Copies what there is now. Raises FleetError or StoreUnavailable; what was copied by then stays."""
        told, failed = await self._ask(CopyRequest(has=self._has), CopiedNodes), list[FleetError]()
        for each in told.nodes:
            try:
                await self._copy(each)
            except CutOff:
                raise
            except FleetError as error:  # of one exit: the others' reports are copied
                failed.append(error)
        if failed:
            raise failed[0]

    async def _copy(self, told: ToldNode) -> None:
        async with self._store.read() as db:
            own = await fleet_fold.last_batch(db, told.node)
        if own is not None and own[0] < told.batch <= own[0] + FAR:
            # From the last batch on, with that itself: the hub may have had a part of it alone.
            await self._read(told.node, UsageRequest(batch=max(0, own[0] - 1)))
            async with self._store.write() as db:
                await fleet_fold.note_batch(db, told.node, told.batch, told.mark)
        elif self._compared.get(told.node) != told:
            await self._compare(told, is_far=own is None or own[0] + FAR < told.batch)
        if self._compared.get(told.node) == told:
            self._has[told.node] = told.batch

    async def _compare(self, told: ToldNode, *, is_far: bool) -> None:
        """Reads the months whose sums differ: all of an exit of which nothing is here, or this store or the hub's was
        rolled back. The latter is not seen while more is told."""
        digest = await self._ask(CopyRequest(node=told.node), Digest)
        is_all = (digest.batch, digest.mark) == (told.batch, told.mark)
        if not (is_all or is_far):
            return
        async with self._store.read() as db:
            own = await fleet_fold.months(db, told.node)
        for month in sorted(_differing(digest.months, own)):
            await self._read(told.node, UsageRequest(month=month))
        async with self._store.write() as db:
            await fleet_fold.note_batch(db, told.node, told.batch, told.mark)
            if is_all:
                await fleet_fold.note_upto(db, told.node, told.upto_batch, told.upto)
        if is_all:
            self._compared[told.node] = told

    async def _read(self, node: str, wanted: UsageRequest) -> None:
        more = True
        while more:
            if self._disk_left() < DISK_LEFT:
                raise FleetError("the disk is nearly full")
            page = await self._ask(CopyRequest(node=node, usage=wanted), UsageAnswer)
            told = [(each.session, each.report) for each in page.sessions]
            for first in range(0, len(told), AT_A_TIME):
                async with self._store.write() as db:
                    await merge_reports(db, node, told[first : first + AT_A_TIME])
            more = page.more and bool(told)
            if more:
                wanted = msgspec.structs.replace(wanted, after=told[-1][0])

    async def _ask(self, asked: CopyRequest, shape: type[T]) -> T:
        answer = await self._link.request(self._subject, msgspec.json.encode(asked), ANSWER_S)
        try:
            return read(answer, shape)
        except Unreadable as error:
            raise _refused(answer, error) from error


def _refused(answer: bytes, error: Unreadable) -> NotAnswered:
    try:
        return NotAnswered(f"the hub: {read(answer, LedgerRefusal).error}")
    except Unreadable:
        return NotAnswered(f"the hub's answer is not understood: {error}")


def _differing(theirs: Mapping[str, Sums], own: Mapping[str, MonthSums]) -> set[str]:
    return {month for month, sums in theirs.items() if month not in own or Sums(*astuple(own[month])) != sums}
