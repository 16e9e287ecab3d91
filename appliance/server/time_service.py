"""Asks systemd-timedated whether the clock is synchronised, where the service's sandbox lets it not ask the kernel.

ProtectClock= denies adjtimex(2), by which the clock could be set, and so it cannot be asked about it either.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from appliance.domain import clock_steps
from appliance.network import programs
from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.clock import HostClock, Moment

LOOK_S = 1.0  # for whether it is of interest
ASK_S = 5.0  # at most so often
TIMEOUT_S = 5.0


def ask_timedated() -> bool:
    """Tells what timedated says; without it, or without D-Bus, nothing synchronises. Blocks."""
    try:
        said = programs.run("timedatectl", "show", "--property=NTPSynchronized", "--value", timeout_s=TIMEOUT_S)
    except programs.ProgramFailed:
        return False
    return said.strip() == "yes"


class ServiceClock:
    """Reads the host's clocks. An answer to whether they are synchronised holds for one setting of the wall clock.

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
            asked = await self.ask_if_wanted()
            await wait(stopping, ASK_S if asked else self._interval_s)

    async def ask_if_wanted(self) -> bool:
        """Asks once, if the answer is of interest. Returns whether it was."""
        if not self._wanted:
            return False
        self._wanted = False
        before = self._host.now()
        synchronised = await asyncio.to_thread(self._ask)
        after = self._host.now()
        self._told = after if synchronised and clock_steps.same_setting(before, after) else None
        return True
