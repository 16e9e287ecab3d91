"""Chooses the ports that clients' packets leave with: the widest run without a listener of the host. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.rules import UNPRIVILEGED, PortRange

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

ENOUGH_PORTS = 28_000  # a NAT's usual range, that of Linux for its own connections


def runs(taken: Collection[int]) -> Iterator[PortRange]:
    """Returns the runs of unprivileged ports that are not taken, in ascending order."""
    first = UNPRIVILEGED.first
    for port in [*sorted(port for port in taken if port in UNPRIVILEGED), UNPRIVILEGED.last + 1]:
        if port > first:
            yield PortRange(first, port - 1)
        first = max(first, port + 1)


def choose(taken: Collection[int], current: PortRange | None = None) -> PortRange | None:
    """Returns the widest run; None if every port is taken.

    The current range is kept while it is free, and grows with its run, as a client's port keeps its outside port only
    in the same range. It is left for a wider run where it has not enough ports.
    """
    free = list(runs(taken))
    around = next((r for r in free if current and current.first in r and current.last in r), None)
    if around is not None and around.width >= ENOUGH_PORTS:
        return around
    return max(free, key=lambda r: (r.width, r == around, _overlap(r, current)), default=None)


def _overlap(run: PortRange, current: PortRange | None) -> int:
    return 0 if current is None else max(0, min(run.last, current.last) - max(run.first, current.first) + 1)


def borders(run: PortRange) -> list[int]:
    """Returns the ports that keep a run from being wider."""
    return [port for port in (run.first - 1, run.last + 1) if port in UNPRIVILEGED]


def parse_ports(text: str) -> frozenset[int]:
    """Parses net.ipv4.ip_local_reserved_ports: ports and ranges of them, separated by commas."""
    ports = set[int]()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        ports.update(range(int(first), int(last or first) + 1))
    return frozenset(ports)
