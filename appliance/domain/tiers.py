"""Defines account tiers and their limits."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Tier(StrEnum):
    ANONYMOUS = "anonymous"
    FREE = "free"
    PAID = "paid"


class TierLimits(Protocol):
    """States a tier's limits: sizes in bytes, durations in seconds; a limit of 0 means unlimited.

    `max_devices` None: no devices."""

    @property
    def bytes_limit(self) -> int: ...
    @property
    def bytes_window(self) -> int: ...
    @property
    def seconds_limit(self) -> int: ...
    @property
    def seconds_window(self) -> int: ...
    @property
    def max_session(self) -> int: ...
    @property
    def max_live_sessions(self) -> int: ...
    @property
    def max_devices(self) -> int | None: ...
    @property
    def idle_timeout(self) -> int: ...


def is_limited(tier: TierLimits) -> bool:
    """Tells whether what an account's sessions do counts toward a limit of its own."""
    return bool(tier.bytes_limit or tier.seconds_limit or tier.max_live_sessions)
