"""Follows which ports the host itself uses, and so which ones clients' packets may leave with. Blocking."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from appliance.network.firewall.port_ranges import choose, parse_ports
from appliance.network.firewall.rules import PortRanges
from appliance.network.firewall.settled_listeners import SettledListeners
from appliance.network.netlink import sock_diag

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from appliance.network.firewall.rules import PortRange
    from appliance.network.firewall.settled_listeners import Port
    from appliance.network.netlink.sock_diag import ListeningSocket

log = logging.getLogger(__name__)

RESERVED = "net/ipv4/ip_local_reserved_ports"  # both IP versions', as the next
EPHEMERAL = "net/ipv4/ip_local_port_range"
NO_PORTS = range(0)


def taken_now(proc_sys: Path) -> frozenset[Port]:
    """Reads the ports that have a listener, however short, or are reserved. Raises OSError or ValueError."""
    listening = {(listener.protocol, listener.port) for listener in sock_diag.listeners()}
    return frozenset(listening | _of_both_protocols(parse_ports((proc_sys / RESERVED).read_text("ascii"))))


def _of_both_protocols(ports: Collection[int]) -> set[Port]:
    return {(protocol, port) for port in ports for protocol in (sock_diag.TCP, sock_diag.UDP)}


class HostPorts:
    """Holds the ranges for clients' packets, and the ports that are taken, as of the last look.

    `own`: ports that the appliance listens on, or will.
    """

    def __init__(
        self,
        own: Collection[Port],
        proc_sys: Path,
        read: Callable[[], Collection[ListeningSocket]] = sock_diag.listeners,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = frozenset(own)
        self._proc_sys = proc_sys
        self._read = read
        self._now = now
        self._settled = SettledListeners()
        self._fault: str | None = None
        self._looked = False
        self._used = self.taken = self._own
        self._published: frozenset[Port] = frozenset()
        self.ranges = self._chosen(PortRanges())

    def look(self, published: Collection[Port] = ()) -> None:
        """Reads the host's listeners and reserved ports. Where they cannot be read, what was seen last stays.

        `published`: ports that the host forwards to others.
        """
        self._published = frozenset(published)
        try:
            listeners, reserved = self._read(), self._reserved()
        except (OSError, ValueError) as error:
            self._report(str(error))
            return
        self._report(None)
        settled = self._settled.look(listeners, self._ephemeral(), self._now())
        used = self._own | settled | _of_both_protocols(reserved)
        self._used, self.taken = used, used | self._published
        self._choose()

    def _choose(self) -> None:
        before, self.ranges = self.ranges, self._chosen(self.ranges)
        if self.ranges != before or not self._looked:
            log.info("clients' packets leave from TCP ports %s and UDP ports %s", self.ranges.tcp, self.ranges.udp)
        self._looked = True

    def _chosen(self, before: PortRanges) -> PortRanges:
        return PortRanges(self._range(sock_diag.TCP, before.tcp), self._range(sock_diag.UDP, before.udp))

    def _range(self, protocol: int, before: PortRange | None) -> PortRange | None:
        taken, used = ({port for of, port in ports if of == protocol} for ports in (self.taken, self._used))
        # A host that forwards every port to another machine would leave none.
        return choose(taken, before) or choose(used, before)

    def _reserved(self) -> frozenset[int]:
        return parse_ports((self._proc_sys / RESERVED).read_text("ascii"))

    def _ephemeral(self) -> range:
        try:
            first, last = map(int, (self._proc_sys / EPHEMERAL).read_text("ascii").split())
        except OSError:
            return NO_PORTS
        return range(first, last + 1)

    def _report(self, fault: str | None) -> None:
        """Logs a fault once, not at each look."""
        if fault is not None and fault != self._fault:
            log.warning("the host's listening ports cannot be read, clients may meet a service's: %s", fault)
        self._fault = fault
