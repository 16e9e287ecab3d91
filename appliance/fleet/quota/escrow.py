"""Decides what the ledger lends of an account's limits. Its record says for each exit what it was lent and has used.

What is lent to an exit, used or not, is nobody else's until the exit gives it back. So the sum of what is used stays
within the limit, whatever becomes of messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from appliance.domain import windows
from appliance.domain.windows import Window
from appliance.fleet.quota.messages import NONE, LeaseTold, WindowAsk, WindowTold

if TYPE_CHECKING:
    from collections.abc import Collection

    from appliance.domain.tiers import TierLimits
    from appliance.fleet.quota.messages import LeaseAsk

LAPSES_MS = 600_000  # since an exit's last request
LEAST = 64  # this part of a limit is lent while there is as much


class PartOfWindow(Struct, frozen=True, gc=False, omit_defaults=True):
    """Holds what an exit was lent and has used of a window.

    `early`: what it took of it before each exit had told what it holds.
    """

    granted: int = 0
    used: int = 0
    early: int = 0

    @property
    def taken(self) -> int:
        return max(self.granted, self.used)


class PartOfLive(Struct, frozen=True, gc=False, omit_defaults=True):
    """Holds how many sessions an exit may have. `early`: as with windows."""

    count: int = 0
    early: int = 0


class HeardRequest(Struct, frozen=True, gc=False):
    """Holds the number of an exit's last request, and when that came (ms since the epoch)."""

    e: int
    q: int
    at: int


class WindowRecord(Struct, frozen=True, gc=False, omit_defaults=True):
    """Holds when a window opened, 0: it is not open; and the exits' parts of it.

    `unheard`: what was used, as others were told, by exits that have not told of it since the ledger's memory was made,
    or are in the fleet no more.
    """

    opened: int = NONE
    parts: dict[str, PartOfWindow] = {}
    unheard: int = 0

    def used_elsewhere(self, node: str) -> int:
        return sum(each.used for other, each in self.parts.items() if other != node)


class QuotaRecord(Struct, frozen=True, gc=False, omit_defaults=True):
    """Holds how one account's limits are lent.

    `complete`: nothing is lent that is not in the record, as each exit has told what it holds. `gen`: the fleet's
    generation in which this was lent.
    """

    traffic: WindowRecord = WindowRecord()
    time: WindowRecord = WindowRecord()
    live: dict[str, PartOfLive] = {}
    heard: dict[str, HeardRequest] = {}
    complete: bool = False
    gen: int = 0


class LedgerFacts(Struct, frozen=True, gc=False):
    """Holds what a decision depends on besides the record.

    `told`: the exits that have told all they hold since the ledger's memory was made. `lends`: what was lent to an exit
    that was not heard of for LAPSES_MS may be lent again.
    """

    limits: TierLimits
    members: Collection[str]
    told: Collection[str]
    lends: bool
    now_ms: int


class Lending(Struct, frozen=True, gc=False):
    """Holds who asks, how many exits share, whether all have told, and whose grants may be lent again."""

    node: str
    nodes: int
    complete: bool
    lapsed: frozenset[str]

    def share_left(self, free: int, early: int, mine: int) -> int:
        """Returns what the exit may take before all have told. `early`: what all took of it so far, `mine`: it did."""
        return max(0, (free + early) // self.nodes - mine)

    def slots_left(self, free: int, early: int, mine: int) -> int:
        """Returns how many sessions it may open then: one at least if there are any, or few could open one."""
        return max(0, -(-(free + early) // self.nodes) - mine)


def decide(record: QuotaRecord, node: str, asked: LeaseAsk, given: LedgerFacts) -> tuple[QuotaRecord, LeaseTold]:
    """Returns the record after a request, and what the exit is told. `node` is one of the members.

    A request that is not newer than the exit's last changes nothing: the answer is the one to the last.
    """
    last = record.heard.get(node)
    if last is not None and (asked.e, asked.q) <= (last.e, last.q):
        return record, _told(record, node, given)
    limits, now_ms = given.limits, given.now_ms
    record = _without_forgotten(record, given)
    heard = {**record.heard, node: HeardRequest(asked.e, asked.q, now_ms)}
    complete = record.complete or all(each in heard or each in given.told for each in given.members)
    record = replace(record, heard=heard, complete=complete)
    lending = _lending(record, node, given)
    record = replace(
        record,
        traffic=_of_window(
            record.traffic, asked.traffic, (limits.bytes_limit, limits.bytes_window * 1000), lending, now_ms
        ),
        time=_of_window(
            record.time, asked.time, (limits.seconds_limit * 1000, limits.seconds_window * 1000), lending, now_ms
        ),
        live=_of_live(record.live, asked, limits.max_live_sessions, lending),
    )
    return record, _told(record, node, given)


def _without_forgotten(record: QuotaRecord, given: LedgerFacts) -> QuotaRecord:
    """Returns the record with nothing lent to those that are in the fleet no more; what they used was used."""
    if record.heard.keys() <= set(given.members):
        return record

    def spent(window: WindowRecord) -> WindowRecord:
        parts = {
            node: part if node in given.members else PartOfWindow(part.used, part.used)
            for node, part in window.parts.items()
        }
        return WindowRecord(window.opened, parts, window.unheard)

    return QuotaRecord(
        spent(record.traffic),
        spent(record.time),
        {node: part for node, part in record.live.items() if node in given.members},
        {node: heard for node, heard in record.heard.items() if node in given.members},
        record.complete,
        record.gen,
    )


def _lending(record: QuotaRecord, node: str, given: LedgerFacts) -> Lending:
    lapsed = (each for each, heard in record.heard.items() if given.lends and given.now_ms - heard.at >= LAPSES_MS)
    return Lending(node, max(1, len(given.members)), record.complete, frozenset(lapsed))


def _of_window(
    window: WindowRecord, asked: WindowAsk, terms: tuple[int, int], lending: Lending, now_ms: int
) -> WindowRecord:
    """Returns the window after a request. `terms`: its limit, and how long it is (ms)."""
    limit, length_ms = terms
    window, asked = _opened(window, asked, length_ms, now_ms)
    if not window.opened:
        return window
    had = window.parts.get(lending.node)
    granted = max(asked.granted, min(0 if had is None else had.granted, asked.want))
    part = PartOfWindow(granted if limit else 0, max(0 if had is None else had.used, asked.used))
    early = 0 if had is None or lending.complete else max(0, had.early + part.taken - had.taken)
    if had is None or not lending.complete:
        window = _with_unheard(window, part.used if had is None else 0, asked.others, lending)
    if limit:
        part = _lent(window, replace(part, early=early), asked.want, limit, lending)
    return WindowRecord(window.opened, {**window.parts, lending.node: part}, window.unheard)


def _with_unheard(window: WindowRecord, told: int, others: int, lending: Lending) -> WindowRecord:
    """Returns the window with what others have used by the word of the asking exit, which `told` of its own use now."""
    known = window.used_elsewhere(lending.node)
    return replace(window, unheard=max(window.unheard - told, others - known, 0))


def _opened(window: WindowRecord, asked: WindowAsk, length_ms: int, now_ms: int) -> tuple[WindowRecord, WindowAsk]:
    """Returns the window that is open now, and what the request says of it.

    Of windows that overlap, the one that opened first is all exits'.
    """
    opened = windows.at(Window(window.opened or None), length_ms, now_ms).opened_at
    theirs = windows.at(Window(asked.opened or None), length_ms, now_ms).opened_at
    if theirs is None:
        asked = WindowAsk(want=max(0, asked.want - asked.used))  # what was used counted for a window that is over
    if opened is None:
        if not asked.want and not asked.used and not asked.granted:
            return WindowRecord(), asked
        return WindowRecord(now_ms if theirs is None else min(theirs, now_ms)), asked
    if theirs is not None and theirs >= opened + length_ms:
        return window, WindowAsk()  # the exit's clock is ahead: this window is over there
    return replace(window, opened=opened if theirs is None else min(opened, theirs)), asked


def _lent(window: WindowRecord, part: PartOfWindow, want: int, limit: int, lending: Lending) -> PartOfWindow:
    """Returns the asking exit's part with what it is lent now."""
    free = _free(window, part, limit, lending)
    more = min(max(0, want - part.taken), max(min(-(-limit // LEAST), free), free // 2))
    if lending.complete:
        return PartOfWindow(part.taken + more, part.used)
    more = min(more, lending.share_left(free, _early(window, part, lending), part.early))
    return PartOfWindow(part.taken + more, part.used, part.early + more)


def _free(window: WindowRecord, part: PartOfWindow, limit: int, lending: Lending) -> int:
    others = sum(
        each.used if node in lending.lapsed else each.taken
        for node, each in window.parts.items()
        if node != lending.node
    )
    return max(0, limit - others - window.unheard - part.taken)


def _early(window: WindowRecord, part: PartOfWindow, lending: Lending) -> int:
    """Returns what all took before all had told. What may be lent again of it is free."""
    return part.early + sum(
        max(0, each.early - (each.taken - each.used)) if node in lending.lapsed else each.early
        for node, each in window.parts.items()
        if node != lending.node
    )


def _of_live(live: dict[str, PartOfLive], asked: LeaseAsk, limit: int, lending: Lending) -> dict[str, PartOfLive]:
    """Returns the exits' sessions after a request. What the exit has it has, whatever the limit says."""
    wanted = max(asked.live, asked.live_wanted)
    had = live.get(lending.node)
    if not limit:
        return {**live, lending.node: PartOfLive(wanted)}
    others = {node: each for node, each in live.items() if node != lending.node}
    free = max(0, limit - sum(each.count for each in others.values()) - asked.live)
    more = min(wanted - asked.live, free)
    if lending.complete:
        return {**others, lending.node: PartOfLive(asked.live + more)}
    early = 0 if had is None else max(0, had.early + asked.live - had.count)
    more = min(more, lending.slots_left(free, early + sum(each.early for each in others.values()), early))
    return {**others, lending.node: PartOfLive(asked.live + more, early + more)}


def _told(record: QuotaRecord, node: str, given: LedgerFacts) -> LeaseTold:
    """Returns how the record stands for one exit."""
    lending, limits, heard = _lending(record, node, given), given.limits, record.heard[node]
    others = sum(each.count for other, each in record.live.items() if other != node)
    mine = record.live.get(node, PartOfLive())
    free = max(0, limits.max_live_sessions - others - mine.count)
    if not record.complete:
        early = sum(each.early for each in record.live.values())
        free = min(free, lending.nodes * lending.slots_left(free, early, mine.early))
    return LeaseTold(
        heard.e,
        heard.q,
        _window_told(record.traffic, limits.bytes_limit, lending),
        _window_told(record.time, limits.seconds_limit * 1000, lending),
        mine.count,
        free,
        others,
    )


def _window_told(window: WindowRecord, limit: int, lending: Lending) -> WindowTold:
    """Returns how a window stands for the asking exit. Before all have told, only its own share is free to it."""
    part = window.parts.get(lending.node, PartOfWindow())
    free = _free(window, part, limit, lending)
    if not lending.complete:
        free = lending.nodes * lending.share_left(free, _early(window, part, lending), part.early)
    return WindowTold(
        window.opened, part.granted, part.used, free, window.used_elsewhere(lending.node) + window.unheard
    )
