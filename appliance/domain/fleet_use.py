"""Sums an account's use of its current windows on several exits, from what they have reported. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from appliance.domain import windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from appliance.domain.tiers import TierLimits
    from appliance.domain.windows import Windows


class ExitWindows(NamedTuple):
    """Holds an account's windows on one exit, as last reported."""

    node: str
    windows: Windows


class WindowsUse(NamedTuple):
    """Holds what was used of the current windows: bytes, and ms of session time."""

    total_bytes: int = 0
    time_ms: int = 0


def current(reported: Iterable[ExitWindows], tier: TierLimits, now_ms: int) -> dict[str, WindowsUse]:
    """Returns what each exit has reported of its current windows; of windows that are over, nothing."""
    used = {}
    for node, each in reported:
        traffic = windows.at(each.traffic, tier.bytes_window * 1000, now_ms)
        time = windows.at(each.time, tier.seconds_window * 1000, now_ms)
        used[node] = WindowsUse(traffic.used, time.used)
    return used


def summed(answered: Mapping[str, WindowsUse], reported: Mapping[str, WindowsUse]) -> WindowsUse:
    """Returns the use on all exits. Where one has both answered and reported, the larger figure holds."""
    total = WindowsUse()
    for node in answered.keys() | reported.keys():
        one, other = answered.get(node, WindowsUse()), reported.get(node, WindowsUse())
        total = WindowsUse(
            total.total_bytes + max(one.total_bytes, other.total_bytes),
            total.time_ms + max(one.time_ms, other.time_ms),
        )
    return total
