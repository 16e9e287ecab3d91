"""Asks systemd-timedated whether the clock is synchronised, where the service's sandbox lets it not ask the kernel.

ProtectClock= denies adjtimex(2), by which the clock could be set, and so it cannot be asked about it either.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from appliance.domain import clock_steps
from appliance.network import programs
from appliance.server.supervisor import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.clock import HostClock, Moment

LOOK_S = 5.0
TIMEOUT_S = 5.0


def ask_timedated() -> bool:
    """Tells what timedated says; without it, or without D-Bus, nothing synchronises. Blocks."""
    try:
        said = programs.run("timedatectl", "show", "--property=NTPSynchronized", "--value", timeout_s=TIMEOUT_S)
    except programs.ProgramFailed:
        return False
    return said.strip() == "yes"


class ServiceClock:
    """Reads the host's clocks. Whether they are synchronised it was told of a setting of the wall clock, no other one.

    `run` asks, in the background, and only while `synchronised` is of interest: while the clock is doubted.
    """

    def __init__(self, host: HostClock, ask: Callable[[], bool] = ask_timedated, interval_s: float = LOOK_S) -> None:
        self._host = host
        self._ask = ask
        self._interval_s = interval_s
        self._wanted = False
        self._told: Moment | None = None  # synchronised then

    def now(self) -> Moment:
        return self._host.now()

    def synchronised(self) -> bool:
        """Tells whether a time service keeps the wall clock synchronised, as far as that is known by now."""
        answer = self._host.kernel_synchronised()
        if answer is not None:
            return answer
        self._wanted = True
        return self._told is not None and clock_steps.same_setting(self._told, self._host.now())

    async def run(self, stopping: asyncio.Event) -> None:
        """Asks while it is of interest, until `stopping`."""
        while not stopping.is_set():
            if self._wanted:
                self._wanted = False
                before = self._host.now()
                synchronised = await asyncio.to_thread(self._ask)
                after = self._host.now()
                self._told = after if synchronised and clock_steps.same_setting(before, after) else None
            await wait(stopping, self._interval_s)
