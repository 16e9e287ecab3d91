"""Reports this exit's sessions to the hub: what began or ended at once, what moved each minute.

Nothing is queued: the store's rows say what is yet to be told, so that a cut of a day costs what one of a minute does.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from appliance.domain.errors import FleetError, StoreUnavailable
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.link.wire import PREFIX
from appliance.fleet.reports import epochs
from appliance.fleet.reports.adopting import Adopting
from appliance.fleet.reports.epochs import ReportBatch
from appliance.fleet.reports.own_reports import as_told, facts, report_of
from appliance.fleet.reports.reports import Digest, ReportMark, UsageRequest, mark_subject, subject_of
from appliance.sessions.stopping import pause
from appliance.store.commits import StoreNews
from appliance.store.queries import fleet_moved, fleet_reports
from appliance.store.queries.fleet_reports import Acknowledged

if TYPE_CHECKING:
    from appliance.domain.clock import Clock, Moment
    from appliance.fleet.link.wire import HubLink
    from appliance.fleet.reports.reports import SessionReport
    from appliance.store.database import Store

NOTED_AT_ONCE = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReportingPace:
    """Says how often, and how much at once. `report_s`: for live sessions; `look_s`: for what began or ended."""

    report_s: float = 60.0
    look_s: float = 0.5
    answer_s: float = 5.0
    per_second: int = 200
    in_flight: int = 256
    older_at_once: int = 500  # sessions that had ended before the exit came into the fleet


class Reporting:
    """Reports until it is cancelled.

    `settled`: all was told, and the hub's digest is the same. `resent`: how many sessions were sent again, as the hub
    lacked them; `adopted`: as the store lacked what the hub had.
    """

    def __init__(self, node: str, link: HubLink, store: Store, clock: Clock, pace: ReportingPace) -> None:
        self._node = node
        self._link = link
        self._store = store
        self._news = StoreNews(store.commits)
        self._clock = clock
        self._pace = pace
        self._adopting = Adopting(node, link, store)
        self._compared = False  # with what the hub has, since the connection was made
        self._noted: Moment | None = None  # when moved sessions were last noted
        self._counted: int | None = None  # up to when (wall clock, ms) all use was counted then
        self._differing: set[str] = set()  # months that differed when they were last compared
        self.settled = False  # all was told, and the hub has made the same of it
        self.resent = 0
        self.adopted = 0

    def reconnected(self) -> None:
        """Has what the hub has compared before anything else is sent. Called when the connection was made again."""
        self._compared = False

    def report_each(self, seconds: float) -> None:
        """Has live sessions reported as often as this from now on."""
        self._pace = replace(self._pace, report_s=seconds)

    async def run(self) -> None:
        failing = False
        loop = asyncio.get_running_loop()
        while True:
            sent, began = 0, loop.time()
            try:
                sent = await self.step()
                failing = False
            except (FleetError, StoreUnavailable, Unreadable) as error:
                self._compared = False
                if not failing:
                    log.warning("sessions are not reported to the fleet: %r", error)
                failing = True
            # What sending took counts, however far the hub is. If there is more, no look is waited for.
            least = 0.0 if sent >= self._pace.per_second else self._pace.look_s
            await pause(max(least, began + sent / self._pace.per_second - loop.time()))

    async def step(self) -> int:
        """Sends up to a second's reports; once there are none, compares the digest. Returns how many were acknowledged.

        Raises FleetError, StoreUnavailable, or Unreadable: the hub answers what is not understood.
        """
        if not self._link.connected:
            self._compared = False
            return 0
        if not self._compared:
            await self._compare_batches()
        now = self._clock.now()
        due = self._noted is None or now.boot_ms - self._noted.boot_ms >= self._pace.report_s * 1000
        if due:
            async with self._store.write() as db:
                await fleet_reports.note_older(db, self._pace.older_at_once)
            await self._note_moved()
            self._noted = now
        sent = await self._send()
        if sent:
            self.settled = False
        # A batch that is not full had all that was noted: an exit where much begins is compared each minute too.
        if sent < self._pace.per_second and (due or not (sent or self.settled)):
            await self._finish()
        return sent

    async def _note_moved(self) -> None:
        """In pieces: others write meanwhile."""
        async with self._store.snapshot() as db:
            moved = await fleet_moved.found(db)
            self._counted = await fleet_moved.counted_until(db)
        for first in range(0, len(moved), NOTED_AT_ONCE):
            async with self._store.write() as db:
                await fleet_moved.note(db, moved[first : first + NOTED_AT_ONCE])

    async def unsent(self) -> int:
        """Returns how many sessions the hub is yet to be told of. Raises StoreUnavailable."""
        async with self._store.read() as db:
            return await fleet_reports.count_unsent(db)

    async def _compare_batches(self) -> None:
        """Takes over what the store lacks, if it went back in time. Nothing is reported before."""
        digest = await self._digest()
        async with self._store.read() as db:
            state = await fleet_reports.state(db)
        if state is None:
            raise StoreUnavailable
        own = ReportBatch(state.batch, state.mark)
        if state.restored or epochs.went_back(own, digest.last_batch):
            adopted = await self._adopting.adopt(UsageRequest(batch=state.acknowledged))
            after = epochs.after_going_back(own, digest.last_batch, secrets.randbits(32))
            async with self._store.write() as db:
                await fleet_reports.begin_epochs(db)
                await fleet_reports.put_batch(db, after.number, after.mark)
                await fleet_reports.put_acknowledged(db, after.number)
            self.adopted += adopted
            if adopted:
                log.warning("the store lacked what the fleet was told of %d sessions: they go on from there", adopted)
        self._compared = True

    async def _digest(self) -> Digest:
        answer = await self._link.request(f"{PREFIX}.led.{self._node}.digest", b"{}", self._pace.answer_s)
        return read(answer, Digest)

    # Sending -------------------------------------------------------------------------------------------

    async def _send(self) -> int:
        if not self._news.is_any():
            return 0
        async with self._store.read() as db:
            if not await fleet_reports.is_any_unsent(db):
                self._news.taken()
                return 0
        reports = await self._next_batch()
        limit = asyncio.Semaphore(self._pace.in_flight)
        errors: list[FleetError] = []
        kept = await asyncio.gather(*(self._keep(limit, *each, errors) for each in reports.items()))
        acknowledged = [Acknowledged(*each) for each in kept if each is not None]
        if acknowledged:
            months = {session_id: report.month for session_id, report in reports.items()}
            async with self._store.write() as db:
                await fleet_reports.acknowledge(db, acknowledged, months)
                await fleet_reports.put_acknowledged(db, next(iter(reports.values())).batch)
        if errors:
            raise errors[0]
        return len(acknowledged)

    async def _next_batch(self) -> dict[str, SessionReport]:
        """Makes the reports of the next batch. Its number is stored before any of them is sent."""
        async with self._store.write() as db:
            state = await fleet_reports.state(db)
            if state is None:
                return {}
            batch = ReportBatch(state.batch + 1, secrets.token_hex(4))
            found = await facts(db, await fleet_reports.unsent(db, self._pace.per_second))
            await fleet_reports.put_batch(db, batch.number, batch.mark)
            await fleet_reports.put_figures(db, [as_told(each) for each in found])
            return {each.row.session_id: report_of(each, batch) for each in found}

    async def _keep(
        self, limit: asyncio.Semaphore, session_id: str, report: SessionReport, errors: list[FleetError]
    ) -> tuple[str, int, str, int] | None:
        async with limit:
            if errors:
                return None
            try:
                subject = subject_of(self._node, session_id, report.of_epoch)
                await self._link.keep(subject, msgspec.json.encode(report), self._pace.answer_s)
            except FleetError as error:
                errors.append(error)
                return None
        return session_id, report.v, report.epoch, report.total_bytes

    # Comparing -----------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """Compares what the hub has made of the reports; if it is the same, says up to when all is told.

        A month that differs twice in a row is sent again whole.
        """
        async with self._store.read() as db:
            state, own = await fleet_reports.state(db), await fleet_reports.months(db)
        if state is None:
            return
        theirs = (await self._digest()).months
        differing = {m for m, sums in own.items() if m not in theirs or _numbers(theirs[m]) != _numbers(sums)}
        if not differing and not state.older_than and self._counted is not None:
            sums = sum(each.sessions for each in own.values()), sum(each.sum_v for each in own.values())
            mark = ReportMark(state.batch, state.mark, self._counted, *sums)
            await self._link.keep(mark_subject(self._node), msgspec.json.encode(mark), self._pace.answer_s)
        for month in sorted(differing & self._differing):
            self.adopted += await self._adopting.adopt(UsageRequest(month=month))
            async with self._store.write() as db:
                self.resent += await fleet_reports.send_month_again(db, month)
        self._differing = differing - self._differing
        self.settled = not differing


def _numbers(sums: object) -> tuple[object, ...]:
    return msgspec.structs.astuple(sums)  # type: ignore[arg-type]
