"""Keeps clients' packets away from the ports on which the host listens, in a background task."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    from collections.abc import Collection

    from appliance.network.firewall.host_ports import HostPorts
    from appliance.network.firewall.rules import PortRanges
    from appliance.network.firewall.settled_listeners import Port
    from appliance.sessions.wakeup import Wakeup

LOOK_S = 10.0
POLL_S = 0.1


class PortUser(Protocol):
    """Translates clients' packets to host ports."""

    @property
    def is_applied(self) -> bool:
        """Tells whether the ranges as last set have been applied."""

    @property
    def restorations(self) -> int:
        """Returns how many times the table was applied again, after a change by another program."""

    @property
    def published(self) -> frozenset[Port]:
        """Returns the ports that other programs forward."""

    def use_ports(self, ranges: PortRanges) -> bool:
        """Sets the ranges, which the next tick applies. Returns whether they differ from the last ones."""

    async def forget_on_ports(self, ports: Collection[Port]) -> None:
        """Deletes clients' flows that leave from these ports."""


class PortWatch:
    """Looks at the host's listeners every `interval_s`. Where one appears, the range moves and its port is freed."""

    def __init__(
        self,
        ports: HostPorts,
        egress: PortUser,
        wakeup: Wakeup,
        stopping: asyncio.Event,
        interval_s: float = LOOK_S,
    ) -> None:
        self._ports = ports
        self._egress = egress
        self._wakeup = wakeup
        self._stopping = stopping
        self._interval_s = interval_s
        self._free: frozenset[Port] = frozenset()  # taken ports from which no flow of a client leaves
        self._restorations = 0  # of the table, as of when `_free` was true

    async def run(self) -> None:
        """Watches until `stopping`. First frees the ports that were taken at start: a flow may be older."""
        while not self._stopping.is_set():
            await self._free_ports()
            await wait(self._stopping, self._interval_s)
            await asyncio.to_thread(self._ports.look, self._egress.published)

    async def _free_ports(self) -> None:
        taken = self._ports.taken
        if self._egress.use_ports(self._ports.ranges):
            self._wakeup.request_tick()
        # Not before the range is applied: until then new flows may take the port.
        while not self._egress.is_applied:
            if await wait(self._stopping, POLL_S):
                return
        # While the table was away, another program's translation may have let flows take any port.
        restorations = self._egress.restorations
        free = self._free if restorations == self._restorations else frozenset()
        if added := taken - free:
            await self._egress.forget_on_ports(added)
        self._free, self._restorations = taken, restorations
