"""Decides when the ledger is asked about which account. Pure."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from appliance.fleet.quota import holder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.domain.tiers import TierLimits
    from appliance.domain.windows import Window, Windows
    from appliance.fleet.quota.holder import Borrowed, Lease, Own

HELD_MS = 5_000  # how old what was told may be while devices are held
FRESH_MS = 1_000
SOONEST_MS = 100  # between two requests about an account that are not urgent
OLDER_HUB_MS = 5_000  # before a hub is asked again that has never lent


class DueAccounts:
    """Orders accounts by when they are to be looked at, each once: at the earlier of two times."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._at: dict[str, int] = {}

    def put(self, account_id: str, at_ms: int) -> None:
        known = self._at.get(account_id)
        if known is None or at_ms < known:
            self._at[account_id] = at_ms
            heapq.heappush(self._heap, (at_ms, account_id))

    def is_any(self, now_ms: int) -> bool:
        """Tells whether `take` may have something to return."""
        return bool(self._heap) and self._heap[0][0] <= now_ms

    def take(self, now_ms: int, most: int) -> Sequence[str]:
        """Returns up to `most` of those that are due, the first ones; the others stay due."""
        taken = list[str]()
        while len(taken) < most and self.is_any(now_ms):
            at_ms, account_id = heapq.heappop(self._heap)
            if self._at.get(account_id) == at_ms:
                del self._at[account_id]
                taken.append(account_id)
        return taken


def is_near(borrowed: Borrowed, used: Windows, tier: TierLimits, now_ms: int) -> bool:
    """Tells whether less than half of what was lent is left, and a request may be of use."""
    if borrowed.waiting_ms is not None or (borrowed.asked_ms or -SOONEST_MS) + SOONEST_MS > now_ms:
        return False
    return _runs_low(borrowed.traffic, used.traffic, tier.bytes_limit) or _runs_low(
        borrowed.time, used.time, tier.seconds_limit
    )


def _runs_low(lease: Lease, window: Window, limit: int) -> bool:
    if not limit or window.opened_at is None:
        return False
    if lease.opened != window.opened_at:
        return True
    return lease.free > 0 and 2 * (lease.granted - window.used) <= lease.had


def is_fresh(borrowed: Borrowed, now_ms: int) -> bool:
    """Tells whether the ledger has answered just now."""
    return borrowed.told_ms is not None and now_ms - borrowed.told_ms <= FRESH_MS


def is_live_other(borrowed: Borrowed, own: Own, tier: TierLimits) -> bool:
    """Tells whether the account has fewer sessions here than it may, as others may want them, or more."""
    return bool(tier.max_live_sessions) and not own.live <= borrowed.slots.held <= own.live_wanted


def may_ask_held(borrowed: Borrowed, now_ms: int) -> bool:
    return borrowed.asked_ms is None or now_ms - borrowed.asked_ms >= HELD_MS


def is_left_over(borrowed: Borrowed, now_ms: int) -> bool:
    """Tells whether an account without sessions has something to give back, or the ledger has not heard of it."""
    if borrowed.waiting_ms is not None:
        return borrowed.asked_ms is None or now_ms - borrowed.asked_ms >= holder.AGAIN_MS
    return bool(borrowed.slots.held or borrowed.traffic.had or borrowed.time.had)


def has_used(own: Own) -> bool:
    """Tells whether a window is open in which the account has used something here."""
    return any(window.opened_at is not None for window in (own.windows.traffic, own.windows.time))


def is_lowered(before: Borrowed, after: Borrowed) -> bool:
    """Tells whether something is given back, which has to be stored before it is told."""
    return (
        after.traffic.granted < before.traffic.granted
        or after.time.granted < before.time.granted
        or after.slots.held < before.slots.held
    )


def next_look(borrowed: Borrowed, own: Own, tier: TierLimits, now_ms: int, *, sessions: int, held: bool) -> int | None:
    """Returns when to look at the account again (CLOCK_BOOTTIME); None: not before something of it changes.

    `sessions`: how many it has here, ending ones too.
    """
    if borrowed.waiting_ms is not None:
        cut_off = [at for wait in (holder.STRICT_MS, holder.SHARE_MS) if (at := borrowed.waiting_ms + wait) > now_ms]
        return min([(borrowed.asked_ms or now_ms) + holder.AGAIN_MS, *cut_off])
    if held:
        return (borrowed.asked_ms or now_ms) + HELD_MS
    if not sessions and not own.live_wanted:
        return now_ms if is_left_over(borrowed, now_ms) else None
    at_ms = (borrowed.told_ms or now_ms) + holder.REFRESH_MS
    if at_ms <= now_ms:  # there was nothing to tell
        at_ms = now_ms + holder.REFRESH_MS
    lease, window = borrowed.time, own.windows.time
    if tier.seconds_limit and own.live and lease.free > 0 and lease.opened == window.opened_at:
        at_ms = min(at_ms, now_ms + (lease.granted - window.used - lease.had // 2) // own.live)
    return at_ms
