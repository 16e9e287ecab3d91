"""Decides for how long an exit that is cut off opens sessions for the tokens that it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.errors import NoActiveNodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.clock import Clock, Moment

TOLERATED_MS = 300_000  # by which the wall clock may have gone back over a reboot


def may_open(heard: Moment | None, now: Moment, offline_ms: int) -> bool:
    """Tells whether sessions may be opened. `heard`: when the ledger last said that this exit has all changes.

    Within a boot CLOCK_BOOTTIME counts, across boots the wall clock, which must not have gone back by much.
    """
    if heard is None:
        return False
    if heard.boot_id == now.boot_id:
        return now.boot_ms - heard.boot_ms < offline_ms
    return -TOLERATED_MS <= now.wall_ms - heard.wall_ms < offline_ms


class OfflineTokens:
    """Is asked before a session is opened for a token that is valid as far as this exit knows.

    `offline_s`: for how long without the ledger, as it is set now.
    """

    def __init__(self, heard: Callable[[], Moment | None], clock: Clock, offline_s: Callable[[], int]) -> None:
        self._heard = heard
        self._clock = clock
        self._offline_s = offline_s

    def check(self) -> None:
        """Raises NoActiveNodes if the ledger has not been heard for too long: the token may be revoked by now."""
        if not may_open(self._heard(), self._clock.now(), self._offline_s() * 1000):
            raise NoActiveNodes
