"""Folds what exits report into the hub's own store.

The truth is in the streams, which are read by sequence; messages as they pass only wake. How far a stream
was read is kept in memory: after a start or a lost connection it is read from the beginning, as it may have been rolled
back, and what was folded before changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from appliance.domain.errors import CutOff, FleetError, NoResponder, StoreUnavailable
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.reports.folding import merged
from appliance.fleet.reports.reports import (
    STATE,
    ReportMark,
    SessionReport,
    created_in,
    mark_subject,
    rates_of,
    session_of,
)
from appliance.fleet.reports.stream_room import StreamRoom
from appliance.store.queries import fleet_fold, fleet_lines, fleet_windows
from appliance.store.queries.fleet_fold import FoldedRow
from appliance.store.queries.fleet_lines import FoldedLine
from appliance.store.queries.fleet_reports import MonthSums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import aiosqlite

    from appliance.domain.windows import Windows
    from appliance.fleet.link.stream_pages import Streamed
    from appliance.fleet.link.wire import HubLink, Message
    from appliance.fleet.reports.stream_room import Streams
    from appliance.store.database import Store

AT_ONCE = 500  # messages of one read
# Reports of one transaction, and one such transaction at a time, whatever many exits report at once: what this host
# itself writes, such as a session that it opens, waits for one of them.
AT_A_TIME = 100
DISK_LEFT = 512 * 1024 * 1024  # bytes that what others report leaves for this host's own sessions
# What one exit may add to the store since the server has started, whatever the disk has left. Beyond it, no more than
# that: one in the wrong hands that reports without end is refused itself before the others are.
OF_ONE = 64 * 1024 * 1024
STORED = 2  # times as large as it was sent is what is stored of a report: whole, and by lines
PAGES = 4  # of one stream, before it is the others' turn
WAKE_S = 0.2
LOOK_S = 30.0  # also where no message has woken
AGAIN_S = 2.0  # where streams do not answer

log = logging.getLogger(__name__)


class Fold:
    """Folds the streams of these nodes. `disk_left`: bytes, for the store."""

    def __init__(
        self,
        store: Store,
        streams: Streams,
        nodes: Callable[[], Iterable[str]],
        disk_left: Callable[[], int] = lambda: DISK_LEFT,
    ) -> None:
        self._disk_left = disk_left
        self._store = store
        self._streams = streams
        self._nodes = nodes
        self._read_up_to: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._writing = asyncio.Lock()
        self._woken: set[str] = set()
        self._wake = asyncio.Event()
        self._failing: set[str] = set()
        self._grown = Counter[str]()  # by exit, bytes of the store
        self.room = StreamRoom(streams, lambda node: self._read_up_to.get(node, 0))
        self.refused = 0  # messages that are no reports

    async def listen(self, link: HubLink) -> None:
        """Is woken by reports as they pass. Raises FleetError."""
        await link.subscribe(f"{STATE}.>", self._passed)

    async def _passed(self, message: Message) -> None:
        self._woken.add(message.subject.split(".")[2])
        self._wake.set()

    def reconnected(self) -> None:
        """Has all streams read from the beginning."""
        self._read_up_to.clear()
        self._wake.set()

    def forget(self, node: str) -> None:
        """Reads the node's stream from the beginning, should it have one again."""
        self._read_up_to.pop(node, None)

    def members_changed(self) -> None:
        """Has the streams of new members made."""
        self._woken.update(self._nodes())
        self._wake.set()

    async def run(self) -> None:
        """Folds until it is cancelled. What is away is tried again at the next message, or after a while."""
        while True:
            members = list(self._nodes())
            due = [node for node in members if node in self._woken] if self._woken else members
            self._woken.clear()
            self._wake.clear()
            self._failing.intersection_update(members)
            for node in due:
                await self._look(node)
            await asyncio.sleep(WAKE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S if self._failing else LOOK_S):
                    await self._wake.wait()

    async def _look(self, node: str) -> None:
        try:
            if not await self.catch_up(node, PAGES):
                self._woken.add(node)
                self._wake.set()
            await self.make_room(node)
        except CutOff:
            return  # the link says so, and when it is there again
        except (FleetError, StoreUnavailable) as error:
            level = logging.DEBUG if node in self._failing else logging.WARNING
            log.log(level, "reports of %s are not folded: %r", node, error)
            self._failing.add(node)
        except Exception:  # whatever an exit has reported, the others' reports are folded
            log.exception("reports of %s are not folded", node)
            self._failing.add(node)
        else:
            self._failing.discard(node)

    async def catch_up(self, node: str, pages: int | None = None) -> bool:
        """Folds all that the node's stream has now. Raises FleetError or StoreUnavailable.

        `pages`: at most so many. Returns whether all is folded. Makes the stream if there is none: an exit that has
        joined, or whose stream was lost, can report at once.
        """
        async with self._locks.setdefault(node, asyncio.Lock()):
            last = await self._last_sequence(node)
            at = self._read_up_to.get(node, 0)
            if last < at:
                at = 0  # it was made anew or rolled back
            while at < last:
                if pages == 0:
                    return False
                pages = None if pages is None else pages - 1
                self._check_room(node)
                page = await self._streams.read(node, at, AT_ONCE)
                if not page:
                    break
                await self._fold(node, page)
                at = page[-1].sequence
                self._read_up_to[node] = at
            self._read_up_to[node] = max(at, last)
            return True

    def note_grown(self, node: str, size: int) -> None:
        """Notes by how many bytes what is stored of the node has grown."""
        self._grown[node] += size

    def _check_room(self, node: str) -> None:
        """Raises FleetError: exits keep what is not in the fold; without room this host could open no session."""
        left = self._disk_left() - DISK_LEFT
        if left < 0:
            raise FleetError("the disk is nearly full")
        if self._grown[node] > max(OF_ONE, left):
            raise FleetError(
                f"it has added {self._grown[node] >> 20} MiB to the store since the server started, and the disk has "
                "no more than that left for all: make room, or forget it if it is in other hands"
            )

    async def make_room(self, node: str) -> None:
        """Drops the oldest messages that are folded from a stream that is getting full. Raises FleetError."""
        await self.room.make(node)

    async def _last_sequence(self, node: str) -> int:
        try:
            return await self._streams.last_sequence(node)
        except NoResponder:
            await self._streams.make(node)
            return await self._streams.last_sequence(node)

    async def _fold(self, node: str, page: Sequence[Streamed]) -> None:
        reports: list[tuple[str, SessionReport]] = []
        marks: list[ReportMark] = []
        for message in page:
            try:
                session_id = session_of(message.subject, node)
                if session_id is not None:
                    reports.append((session_id, read(message.data, SessionReport)))
                elif message.subject == mark_subject(node):
                    marks.append(read(message.data, ReportMark))
            except Unreadable as error:
                self._refuse(node, message.subject, error)
        for first in range(0, len(reports), AT_A_TIME):
            async with self._writing, self._store.write() as db:
                grown = await fold_reports(db, node, reports[first : first + AT_A_TIME])
            self.note_grown(node, STORED * grown)
        if marks:
            async with self._writing, self._store.write() as db:
                for mark in marks:
                    await _note_mark(db, node, mark)

    def _refuse(self, node: str, subject: str, error: Exception) -> None:
        self.refused += 1
        if self.refused.bit_count() == 1:  # the 1st, 2nd, 4th, 8th…: who sends one can send thousands
            log.warning("%s reports what is not understood on %r: %s", node, subject[:200], error)


async def _note_mark(db: aiosqlite.Connection, node: str, mark: ReportMark) -> None:
    """Notes a mark, and up to when it says that all is reported, if the fold has all that it sums up.

    A fold that was restored reads marks of what has left the stream: it has that once the exit has sent it again.
    """
    await fleet_fold.note_batch(db, node, mark.batch, mark.mark)
    months = (await fleet_fold.months(db, node)).values()
    if sum(each.sessions for each in months) >= mark.sessions and sum(each.sum_v for each in months) >= mark.sum_v:
        await fleet_fold.note_upto(db, node, mark.batch, mark.upto)


async def fold_reports(db: aiosqlite.Connection, node: str, reports: Sequence[tuple[str, SessionReport]]) -> int:
    """Folds reports as the node sends them, in order. As `merge_reports` does, and notes the last batch."""
    grown = await merge_reports(db, node, reports)
    last = max((report for _, report in reports), key=lambda report: report.batch, default=None)
    if last is not None:
        await fleet_fold.note_batch(db, node, last.batch, last.mark)
    return grown


async def merge_reports(db: aiosqlite.Connection, node: str, reports: Sequence[tuple[str, SessionReport]]) -> int:
    """Folds reports of one node. The caller must be in one transaction. Returns how many bytes more are known now."""
    said = await fleet_fold.said_of(db, node, {session_id for session_id, _ in reports})
    known = {session_id: msgspec.json.decode(data, type=SessionReport) for session_id, data in said.items()}
    after = dict(known)
    windows: dict[str, tuple[int, Windows]] = {}
    for session_id, report in reports:
        if report.windows is not None and report.batch >= windows.get(report.account_id, (0,))[0]:
            windows[report.account_id] = report.batch, report.windows.windows
        after[session_id] = merged(after.get(session_id), msgspec.structs.replace(report, windows=None))
    changed = {session_id: report for session_id, report in after.items() if known.get(session_id) != report}
    rows = [_row(node, *each) for each in changed.items()]
    await fleet_fold.put_sessions(db, rows)
    await fleet_lines.put(db, node, {session_id: _lines(session_id, r) for session_id, r in changed.items()})
    await fleet_windows.put(db, node, windows)
    await fleet_fold.add_to_months(db, node, _added(known, changed))
    return sum(len(row.said) - len(said.get(row.session_id, b"")) for row in rows)


def _added(known: dict[str, SessionReport], changed: dict[str, SessionReport]) -> dict[str, MonthSums]:
    sums: dict[str, MonthSums] = {}

    def add(month: str, sign: int, report: SessionReport) -> None:
        was = sums.get(month, MonthSums())
        sums[month] = MonthSums(
            was.sessions + sign, was.sum_v + sign * report.v, was.sum_bytes + sign * report.total_bytes
        )

    for session_id, report in changed.items():
        if session_id in known:
            add(created_in(known[session_id].created_at), -1, known[session_id])
        add(created_in(report.created_at), 1, report)
    return sums


def _row(node: str, session_id: str, report: SessionReport) -> FoldedRow:
    return FoldedRow(
        session_id,
        node,
        report.turn,
        report.epoch,
        report.v,
        report.batch,
        report.account_id if report.region else "",  # of one that retention has removed no list is to have it
        report.created_at,
        report.state,
        report.bytes_in,
        report.bytes_out,
        report.ms,
        msgspec.json.encode(report),
    )


def _lines(session_id: str, report: SessionReport) -> list[FoldedLine]:
    by_month = {line.month: line for line in report.lines}  # one a month, whatever an exit says
    return [
        FoldedLine(
            session_id, report.account_id, line.month, line.started_at, line.ended_at, line.charge, rates_of(line)
        )
        for line in by_month.values()
    ]
