"""Compares an account's use of its windows with its tier's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from appliance.domain import windows
from appliance.domain.grant import Grant  # noqa: TC001 (msgspec reads annotations at run time)
from appliance.domain.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from appliance.domain.entities import Account
    from appliance.domain.tiers import TierLimits
    from appliance.domain.windows import Use

    Lent = Callable[[Account, TierLimits, Windows], Grant | None]

# How soon an account is looked at again that waits for more to be lent.
WAITING_MS = 250


class Quota(Struct, frozen=True, gc=False):
    """Holds use and limits of both windows. A limit of 0 means unlimited. `..._resets_at`: ms since the epoch.

    `grant`: what is lent to this exit, where the limits are a fleet's; the use is then that of all exits.
    """

    bytes_used: int
    bytes_limit: int
    bytes_resets_at: int
    time_used_ms: int
    seconds_limit: int
    seconds_resets_at: int
    grant: Grant | None = None

    @property
    def seconds_used(self) -> int:
        return self.time_used_ms // 1000

    @property
    def bytes_exceeded(self) -> bool:
        if self.grant is not None:
            return self.bytes_limit > 0 and self.grant.bytes_gone
        return 0 < self.bytes_limit <= self.bytes_used

    @property
    def time_exceeded(self) -> bool:
        if self.grant is not None:
            return self.seconds_limit > 0 and self.grant.time_gone
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
        if self.grant is None:
            return max(0, -(-(self.seconds_limit * 1000 - self.time_used_ms) // sessions))
        return max(WAITING_MS if self.grant.more_ms else 0, -(-self.grant.left_ms // sessions))

    @property
    def bytes_left(self) -> int | None:
        """Returns the bytes left in the window. None: unlimited."""
        if not self.bytes_limit:
            return None
        return max(0, self.bytes_limit - self.bytes_used if self.grant is None else self.grant.left_bytes)

    @property
    def told(self) -> Quota:
        """Returns the same as other exits show it: what an account can have no part of counts as used."""
        if self.grant is None:
            return self
        bytes_used = max(self.bytes_used, self.bytes_limit) if self.bytes_exceeded else self.bytes_used
        time_ms = max(self.time_used_ms, self.seconds_limit * 1000) if self.time_exceeded else self.time_used_ms
        return replace(self, bytes_used=bytes_used, time_used_ms=time_ms, grant=None)

    @property
    def own(self) -> Quota:
        """Returns the same without what other exits count."""
        if self.grant is None:
            return self
        return replace(
            self,
            bytes_used=self.bytes_used - self.grant.others_bytes,
            time_used_ms=self.time_used_ms - self.grant.others_ms,
            grant=None,
        )


def current(account: Account, tier: TierLimits, running: Sequence[Use], now_ms: int) -> Windows:
    """Returns the account's windows as of now. `running`: what its sessions used and they do not count yet."""
    used = account.windows.spend(tier, running)
    traffic = windows.at(used.traffic, tier.bytes_window * 1000, now_ms)
    return Windows(traffic, windows.at(used.time, tier.seconds_window * 1000, now_ms))


def measure(account: Account, tier: TierLimits, running: Sequence[Use], now_ms: int, lent: Lent | None = None) -> Quota:
    """Computes the account's quota. `running`: see `current`. `lent`: tells what this exit has of a fleet's limits."""
    used = current(account, tier, running, now_ms)
    grant = None if lent is None else lent(account, tier, used)
    return Quota(
        bytes_used=used.traffic.used + (0 if grant is None else grant.others_bytes),
        bytes_limit=tier.bytes_limit,
        bytes_resets_at=windows.ends_at(used.traffic, tier.bytes_window * 1000, now_ms),
        time_used_ms=used.time.used + (0 if grant is None else grant.others_ms),
        seconds_limit=tier.seconds_limit,
        seconds_resets_at=windows.ends_at(used.time, tier.seconds_window * 1000, now_ms),
        grant=grant,
    )
