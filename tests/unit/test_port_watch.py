"""The watch on the host's listeners: first the range moves, then the flows on the port are forgotten."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from appliance.network.firewall.host_ports import EPHEMERAL, RESERVED, HostPorts
from appliance.network.firewall.rules import PortRange, PortRanges
from appliance.network.netlink.sock_diag import TCP, UDP, ListeningSocket
from appliance.server.port_watch import PortWatch
from appliance.sessions.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

OWN = (UDP, 51820)


class Table:
    """Applies what it is given when it is told to, as a tick does."""

    def __init__(self, ranges: PortRanges) -> None:
        self.ranges = ranges
        self.is_applied = True
        self.published = frozenset[tuple[int, int]]()
        self.restorations = 0
        self.done = list[object]()

    def use_ports(self, ranges: PortRanges) -> bool:
        changed, self.ranges = ranges != self.ranges, ranges
        if changed:
            self.is_applied = False
        return changed

    async def forget_on_ports(self, ports: Collection[tuple[int, int]]) -> None:
        self.done.append(set(ports))

    def apply(self) -> None:
        self.done.append(self.ranges)
        self.is_applied = True


async def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def host_ports(directory: Path, listeners: list[ListeningSocket]) -> HostPorts:
    (directory / "net/ipv4").mkdir(parents=True)
    (directory / RESERVED).write_text("", encoding="ascii")
    (directory / EPHEMERAL).write_text("32768 60999", encoding="ascii")
    ports = HostPorts([OWN], directory, lambda: list(listeners))
    ports.look()
    return ports


def test_the_range_moves_first(tmp_path: Path) -> None:
    """At start the flows on taken ports are forgotten; of a listener that appears, and of a port that is forwarded,
    those on its port, and not before the range without it is applied. Each once; all again after the table was away."""

    async def scene() -> list[object]:
        listeners: list[ListeningSocket] = []
        ports = host_ports(tmp_path, listeners)
        table, wakeup, stopping = Table(ports.ranges), Wakeup(), asyncio.Event()
        watch = asyncio.create_task(PortWatch(ports, table, wakeup, stopping, interval_s=0.02).run())
        await eventually(lambda: len(table.done) == 1)
        listeners.append(ListeningSocket(TCP, 50000, 1))
        listeners.append(ListeningSocket(TCP, 20000, 2))
        await eventually(lambda: not table.is_applied)
        await asyncio.sleep(0.3)
        assert len(table.done) == 1, "nothing is forgotten before the range is applied"
        table.apply()
        await eventually(lambda: len(table.done) == 3)
        table.published = frozenset({(UDP, 9000)})
        await eventually(lambda: not table.is_applied)
        table.apply()
        await eventually(lambda: len(table.done) == 5)
        table.restorations += 1
        await eventually(lambda: len(table.done) == 6)
        stopping.set()
        await watch
        return table.done

    moved, again = (PortRanges(PortRange(20001, 65535), PortRange(first, 51819)) for first in (1024, 9001))
    service, container = (TCP, 20000), (UDP, 9000)
    assert asyncio.run(scene()) == [{OWN}, moved, {service}, again, {container}, {OWN, service, container}]


def test_it_stops_while_the_table_cannot_be_applied(tmp_path: Path) -> None:
    """A firewall that refuses the table does not hold up the end."""

    async def scene() -> None:
        ports = host_ports(tmp_path, [])
        table, stopping = Table(PortRanges()), asyncio.Event()
        watch = asyncio.create_task(PortWatch(ports, table, Wakeup(), stopping, interval_s=0.02).run())
        await eventually(lambda: not table.is_applied)
        stopping.set()
        async with asyncio.timeout(60):
            await watch
        assert table.done == []

    asyncio.run(scene())
