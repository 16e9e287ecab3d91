"""Compares an account's use of its windows with its tier's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from appliance.domain import windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.domain.entities import Account
    from appliance.domain.tiers import TierLimits
    from appliance.domain.windows import Use


class Quota(Struct, frozen=True, gc=False):
    """Holds use and limits of both windows. A limit of 0 means unlimited. `..._resets_at`: ms since the epoch."""

    bytes_used: int
    bytes_limit: int
    bytes_resets_at: int
    time_used_ms: int
    seconds_limit: int
    seconds_resets_at: int

    @property
    def seconds_used(self) -> int:
        return self.time_used_ms // 1000

    @property
    def bytes_exceeded(self) -> bool:
        return 0 < self.bytes_limit <= self.bytes_used

    @property
    def time_exceeded(self) -> bool:
        return 0 < self.seconds_limit * 1000 <= self.time_used_ms

    @property
    def exceeded(self) -> bool:
        return self.bytes_exceeded or self.time_exceeded

    @property
    def resets_at(self) -> int:
        """Returns when the account may connect again: the end of the exhausted window, the later one if both are."""
        tripped = [self.bytes_resets_at] if self.bytes_exceeded else []
        if self.time_exceeded or not tripped:
            tripped.append(self.seconds_resets_at)
        return max(tripped)

    def ms_left(self, sessions: int) -> int | None:
        """Returns how long this many sessions may run at once, ignoring window ends. None: unlimited."""
        if not self.seconds_limit or not sessions:
            return None
        return max(0, -(-(self.seconds_limit * 1000 - self.time_used_ms) // sessions))

    @property
    def bytes_left(self) -> int | None:
        """Returns the bytes left in the window. None: unlimited."""
        return max(0, self.bytes_limit - self.bytes_used) if self.bytes_limit else None


def measure(account: Account, tier: TierLimits, running: Sequence[Use], now_ms: int) -> Quota:
    """Computes the account's quota. `running`: what its sessions used and the account's windows do not count yet."""
    used = account.windows.spend(tier, running)
    traffic_ms, time_ms = tier.bytes_window * 1000, tier.seconds_window * 1000
    traffic, time = windows.at(used.traffic, traffic_ms, now_ms), windows.at(used.time, time_ms, now_ms)
    return Quota(
        bytes_used=traffic.used,
        bytes_limit=tier.bytes_limit,
        bytes_resets_at=windows.ends_at(traffic, traffic_ms, now_ms),
        time_used_ms=time.used,
        seconds_limit=tier.seconds_limit,
        seconds_resets_at=windows.ends_at(time, time_ms, now_ms),
    )
