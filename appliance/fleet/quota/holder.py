"""Decides what an exit asks of an account's limits, and what it may use of them by itself.

What an exit was lent (G) stays its own until it says what it used (U) and gives the rest back: first here, then to the
ledger. So whatever becomes of a message, nothing is lent twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from appliance.domain.grant import Grant
from appliance.domain.windows import Window
from appliance.fleet.quota.messages import LeaseAsk, WindowAsk

if TYPE_CHECKING:
    from appliance.domain.tiers import TierLimits
    from appliance.domain.windows import Windows
    from appliance.fleet.quota.messages import LeaseTold, WindowTold

AGAIN_MS = 2_000  # after a request without an answer, the next one
REFRESH_MS = 30_000  # how old what was told may be, while the account has sessions here that use something
QUIET_MS = 300_000  # the same, where little has changed; less than half of what the ledger calls long
AHEAD_S = 60  # for how long what is wanted lasts, at the fastest rate seen lately
FORGET_MS = 60_000  # for how long a rate counts
SAMPLE_MS = 1_000  # between two readings that a rate is worked out from
SHARE_MS = 5_000  # without an answer, after which an exit uses its share of what was free
STRICT_MS = 1_500  # the same, after which it uses nothing more
PARTS = 64  # the least that is wanted is this part of the limit, less if there are many exits
PARTS_A_NODE = 16


class Lease(Struct, frozen=True, gc=False):
    """Holds what the exit was lent of one window; `opened` 0: nothing yet.

    `had`: what was left of it when the ledger last answered. `free`, `others`: as last told. `seen`, `seen_ms`,
    `rate`: what was used at the last reading of CLOCK_BOOTTIME, and per second lately; not worth storing.
    """

    opened: int = 0
    granted: int = 0
    had: int = 0
    free: int = 0
    others: int = 0
    seen: int = 0
    seen_ms: int = 0
    rate: int = 0


class Slots(Struct, frozen=True, gc=False):
    """Holds how many sessions at once are allowed here, how many more anywhere, and how many elsewhere."""

    held: int = 0
    free: int = 0
    others: int = 0


class Borrowed(Struct, frozen=True, gc=False):
    """Holds one account's part on one exit. `e`, `q`: of the last request; `q` may begin anywhere, best at the wall
    clock's ms, so that it need not be stored with each request.

    CLOCK_BOOTTIME in ms, of this start of the server alone (one that was stored has None): `waiting_ms`, since when
    requests have had no answer, None: the last one has; `asked_ms`: of the last request; `told_ms`: of the last answer.
    `known`: the ledger has answered once, so that what is free is known.
    """

    traffic: Lease = Lease()
    time: Lease = Lease()
    slots: Slots = Slots()
    e: int = 0
    q: int = 0
    known: bool = False
    waiting_ms: int | None = None
    asked_ms: int | None = None
    told_ms: int | None = None


class Own(Struct, frozen=True, gc=False):
    """Holds what the account does on this exit: its windows as of now with all use counted (see `windows.at`), its
    live sessions, and how many there are to be.
    """

    account: str
    windows: Windows
    live: int
    live_wanted: int


class Sharing(Struct, frozen=True, gc=False):
    """Holds what holds for all: how many exits the fleet has, and if one that is cut off uses nothing more."""

    nodes: int
    strict: bool = False


def restored(borrowed: Borrowed) -> Borrowed:
    """Returns what is borrowed after a backup was put back: what was lent may have been given back since."""
    traffic, time = (replace(each, granted=0, had=0) for each in (borrowed.traffic, borrowed.time))
    return Borrowed(traffic, time, replace(borrowed.slots, held=0), borrowed.e + 1, borrowed.q, borrowed.known)


def ask(
    borrowed: Borrowed, own: Own, tier: TierLimits, sharing: Sharing, now_ms: int, *, urgent: bool = False
) -> tuple[Borrowed, LeaseAsk | None]:
    """Returns what to ask of the ledger now, None: nothing. `urgent`: an answer is needed in any case, as to open.

    An urgent request takes the place of one that has no answer yet. Where something is given back (`granted` or
    `slots.held` is less than before), what is borrowed is to be stored before the request is sent.
    """
    traffic = _watched(borrowed.traffic, own.windows.traffic.used, now_ms)
    time = _watched(borrowed.time, own.windows.time.used, now_ms)
    borrowed = replace(borrowed, traffic=traffic, time=time)
    if not (urgent or (_may_ask(borrowed, now_ms) and _is_due(borrowed, own, tier, now_ms))):
        return borrowed, None
    parts = max(PARTS, PARTS_A_NODE * sharing.nodes)
    traffic, of_traffic = _wanted(traffic, own.windows.traffic, tier.bytes_limit, parts)
    time, of_time = _wanted(time, own.windows.time, tier.seconds_limit * 1000, parts)
    return _sent(borrowed, own, (traffic, time), (of_traffic, of_time), now_ms)


def give_back(borrowed: Borrowed, own: Own, now_ms: int) -> tuple[Borrowed, LeaseAsk]:
    """Returns what is borrowed with nothing left, to be stored before the request that says so is sent."""
    traffic, of_traffic = _given_back(borrowed.traffic, own.windows.traffic)
    time, of_time = _given_back(borrowed.time, own.windows.time)
    return _sent(borrowed, own, (traffic, time), (of_traffic, of_time), now_ms)


def counts(borrowed: Borrowed, answer: LeaseTold) -> bool:
    """Tells whether this is the answer to the last request."""
    return (answer.e, answer.q) == (borrowed.e, borrowed.q) and borrowed.waiting_ms is not None


def told(borrowed: Borrowed, answer: LeaseTold, own: Own, now_ms: int) -> Borrowed:
    """Returns what is borrowed after an answer, which counts only if it is to the last request. `own`: see `adopted`.

    One that names a later request says that this exit was put back from a backup, or has forgotten a request as it was
    killed: what it was lent is taken from the next answer, which may be asked for at once.
    """
    if (answer.e, answer.q) > (borrowed.e, borrowed.q):
        again = restored(borrowed)
        return replace(again, e=answer.e, q=answer.q, waiting_ms=borrowed.waiting_ms, told_ms=borrowed.told_ms)
    if not counts(borrowed, answer):
        return borrowed
    return replace(
        borrowed,
        traffic=_lent(borrowed.traffic, answer.traffic, own.windows.traffic),
        time=_lent(borrowed.time, answer.time, own.windows.time),
        slots=Slots(answer.live, answer.live_free, answer.live_others),
        known=True,
        waiting_ms=None,
        told_ms=now_ms,
    )


def adopted(window: Window, answer: WindowTold, asked_used: int, length_ms: int) -> Window:
    """Returns the account's window on this exit as the fleet has it, from an answer that counts: opened as for all.

    `asked_used`: what the request had as used. If the ledger knows of more, the store was put back from a backup.
    """
    if not answer.opened:
        return window
    if window.opened_at is None:
        return Window(answer.opened, answer.used, min(window.since, answer.opened))
    if answer.opened >= window.opened_at + length_ms:
        return Window(answer.opened, answer.used, window.opened_at + length_ms)
    if window.opened_at >= answer.opened + length_ms:
        return window  # the ledger's clock is behind: its window is over
    return Window(answer.opened, window.used + max(0, answer.used - asked_used), min(window.since, answer.opened))


def is_cut_off(borrowed: Borrowed, sharing: Sharing, now_ms: int) -> bool:
    """Tells whether the ledger has not answered for so long that the exit goes by itself."""
    waiting = borrowed.waiting_ms
    return waiting is not None and now_ms - waiting >= (STRICT_MS if sharing.strict else SHARE_MS)


def allowance(borrowed: Borrowed, own: Own, tier: TierLimits, sharing: Sharing, *, cut_off: bool) -> Grant:
    """Returns what the exit may use by itself. `cut_off`: see `is_cut_off`, or as the link says."""
    traffic = _standing(borrowed.traffic, own.windows.traffic, tier.bytes_limit, known=borrowed.known)
    time = _standing(borrowed.time, own.windows.time, tier.seconds_limit * 1000, known=borrowed.known)
    left_bytes, more_bytes = _left(traffic, sharing, cut_off=cut_off)
    left_ms, more_ms = _left(time, sharing, cut_off=cut_off)
    slots = borrowed.slots
    live = slots.held
    if not tier.max_live_sessions:
        live = own.live_wanted
    elif cut_off and not sharing.strict:
        live += -(-(slots.free if borrowed.known else tier.max_live_sessions) // max(1, sharing.nodes))
    return Grant(
        left_bytes,
        left_ms,
        more_bytes,
        more_ms,
        _others(borrowed.traffic, own.windows.traffic),
        _others(borrowed.time, own.windows.time),
        live,
        slots.others,
    )


def _is_of(lease: Lease, window: Window) -> bool:
    """Tells whether the lease is of the window that is open now, and not of one that is over."""
    return lease.opened != 0 and lease.opened == window.opened_at


def _others(lease: Lease, window: Window) -> int:
    return lease.others if _is_of(lease, window) else 0


def _standing(lease: Lease, window: Window, limit: int, *, known: bool) -> tuple[int, int, int]:
    """Returns what is left of what was lent, what was free, and what is left of the limit by all that is known.

    Of a window that the ledger has not told of, nothing was lent, and all is free.
    """
    if not _is_of(lease, window):
        return -window.used, limit, limit - window.used
    return lease.granted - window.used, lease.free if known else limit, limit - window.used - lease.others


def _left(standing: tuple[int, int, int], sharing: Sharing, *, cut_off: bool) -> tuple[int, bool]:
    """Returns what is left and whether more may be lent. While an answer is awaited, an exit may use its share."""
    left, free, room = standing
    with_share = min(left + free // max(1, sharing.nodes), room)
    if cut_off:
        return min(left, room) if sharing.strict else with_share, False
    return min(left, room), with_share > 0


def _watched(lease: Lease, used: int, now_ms: int) -> Lease:
    """Returns the lease with the rate at which the window is used lately."""
    passed = now_ms - lease.seen_ms
    if lease.seen_ms and 0 <= passed < SAMPLE_MS:
        return lease
    if not lease.seen_ms or passed < 0 or used < lease.seen:
        return replace(lease, seen=used, seen_ms=now_ms)
    kept = lease.rate * max(0, FORGET_MS - passed) // FORGET_MS
    rate = max((used - lease.seen) * 1000 // passed, kept)
    return replace(lease, seen=used, seen_ms=now_ms, rate=rate)


def _may_ask(borrowed: Borrowed, now_ms: int) -> bool:
    """Tells whether no answer is awaited any more."""
    return borrowed.waiting_ms is None or borrowed.asked_ms is None or now_ms - borrowed.asked_ms >= AGAIN_MS


def _is_due(borrowed: Borrowed, own: Own, tier: TierLimits, now_ms: int) -> bool:
    if borrowed.waiting_ms is not None or borrowed.told_ms is None:
        return True
    age_ms = now_ms - borrowed.told_ms
    if age_ms >= QUIET_MS or (age_ms >= REFRESH_MS and _is_news(borrowed, own, tier)):
        return True
    return (
        own.live_wanted > max(borrowed.slots.held, own.live)
        or _runs_out(borrowed.traffic, own.windows.traffic, tier.bytes_limit)
        or _runs_out(borrowed.time, own.windows.time, tier.seconds_limit * 1000)
    )


def _is_news(borrowed: Borrowed, own: Own, tier: TierLimits) -> bool:
    """Tells whether what other exits were told is no longer near what is so."""
    return _differs(borrowed.traffic, own.windows.traffic, tier.bytes_limit) or _differs(
        borrowed.time, own.windows.time, tier.seconds_limit * 1000
    )


def _differs(lease: Lease, window: Window, limit: int) -> bool:
    """Tells whether an eighth of what was left is used, or more is left than a quiet account is to keep."""
    left = lease.granted - window.used
    return bool(limit) and (left > 2 * limit // PARTS or 8 * (lease.had - left) >= lease.had)


def _runs_out(lease: Lease, window: Window, limit: int) -> bool:
    """Tells whether less than half of what was lent is left, and there is more."""
    if not limit:
        return False
    if not _is_of(lease, window):
        return True
    return lease.free > 0 and 2 * (lease.granted - window.used) <= lease.had


def _wanted(lease: Lease, window: Window, limit: int, parts: int) -> tuple[Lease, WindowAsk]:
    """Returns the lease as it is from now on, and what to ask. More than twice what is wanted is given back."""
    opened, others = window.opened_at or 0, _others(lease, window)
    if not limit:
        return lease, WindowAsk(opened, window.used, others=others)
    granted = lease.granted if _is_of(lease, window) else 0
    ahead = max(limit // parts, AHEAD_S * lease.rate)
    if granted - window.used <= 2 * ahead:
        return lease, WindowAsk(opened, window.used, granted, max(granted, window.used + ahead), others)
    want = window.used + ahead
    return replace(lease, granted=want), WindowAsk(opened, window.used, want, want, others)


def _given_back(lease: Lease, window: Window) -> tuple[Lease, WindowAsk]:
    opened, used = window.opened_at or 0, window.used
    granted = min(lease.granted, used) if _is_of(lease, window) else 0
    return replace(lease, granted=granted, had=0), WindowAsk(opened, used, granted, granted, _others(lease, window))


def _sent(
    borrowed: Borrowed, own: Own, leases: tuple[Lease, Lease], asked: tuple[WindowAsk, WindowAsk], now_ms: int
) -> tuple[Borrowed, LeaseAsk]:
    """Returns what is borrowed, with an answer awaited, and the request."""
    sent = replace(
        borrowed,
        traffic=leases[0],
        time=leases[1],
        slots=replace(borrowed.slots, held=min(borrowed.slots.held, max(own.live, own.live_wanted))),
        q=borrowed.q + 1,
        waiting_ms=now_ms if borrowed.waiting_ms is None else borrowed.waiting_ms,
        asked_ms=now_ms,
    )
    return sent, LeaseAsk(own.account, sent.e, sent.q, *asked, own.live, max(own.live, own.live_wanted))


def _lent(lease: Lease, answer: WindowTold, window: Window) -> Lease:
    used = max(window.used, answer.used)
    return replace(
        lease,
        opened=answer.opened,
        granted=answer.granted,
        had=max(0, answer.granted - used),
        free=answer.free,
        others=answer.others,
    )
