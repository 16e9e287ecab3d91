"""The ground under the tunnel tests: clients, an exit and an internet, each a network namespace.

    client 1 --- 198.51.100.16/28, 2001:db8:1:1::/64 ---+
                                                        exit --- 203.0.113.0/24, 2001:db8:2::/64 --- internet
    client 2 --- 198.51.100.32/28, 2001:db8:1:2::/64 ---+
    (more where a test asks for them)

The exit's default route leads to the internet, so its public address is 203.0.113.1, and clients dial
that one through their own default route. The internet knows only its own link: a packet that leaves
the exit without address translation gets no answer. The ranges are the documentation ones (RFC 5737,
RFC 3849), which no private-range rule touches.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.support.tunnel.spaces import Spaces, batch, bring_up, link_local_addresses, veth
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_IP = "203.0.113.1"
EXIT_IP6 = "2001:db8:2::1"
WEB_IP = "203.0.113.10"
WEB_IP6 = "2001:db8:2::10"
WEB_PORT = 8000
WEB = f"http://{WEB_IP}:{WEB_PORT}"
WEB6 = f"http://[{WEB_IP6}]:{WEB_PORT}"


class World(Spaces):
    """The namespaces, by role.

    `one_uplink`: the exit has no other link than the one to the internet, as most hosts do, and clients are behind it.
    """

    def __init__(self, stack: ExitStack, clients: int, *, one_uplink: bool = False) -> None:
        super().__init__(stack)
        self.exit = self._namespace("x")
        self.internet = self._namespace("i")
        self.clients = [self._namespace(f"c{number}") for number in range(1, clients + 1)]
        self._one_uplink = one_uplink
        if one_uplink:
            self.internet.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self._join_exit()
        self.internet.run("nft", "-f", "-", text_input=_WATCH)
        self._start_web(self.internet, WEB_PORT)

    def renew_exit(self) -> None:
        """The exit's host goes down and comes up anew: a namespace of the same name, and nothing in it but its links.

        What clients have beside their link to it stays, tunnels too.
        """
        self.exit.remove()
        self.exit = self._namespace("x")
        self._join_exit()

    def packets_from_exit(self) -> int:
        """IP packets (either version; neighbour discovery and ARP apart) the internet has had from the exit."""
        shown = self.internet.run("nft", "list", "counter", "inet", "watch", "from_exit").stdout
        return int(shown.split("packets")[1].split()[0])

    def open_gate(self, gate: str) -> None:
        """Let downloads that trickle until this gate opens go on at full speed."""
        self.internet.run("curl", "-q", "--noproxy", "*", "-sS", "--fail", "-X", "POST", f"{WEB}/open?gate={gate}")

    def _join_exit(self) -> None:
        self._join_internet()
        for number, client in enumerate(self.clients, start=1):
            self._join_client(number, client, self.internet if self._one_uplink else self.exit)
        until(self._exit_has_settled, "the exit's links have their link-local addresses")

    def _join_internet(self) -> None:
        veth(self.exit, "wan", self.internet, "net0")
        bring_up(self.exit, "wan", f"{EXIT_IP}/24", f"{EXIT_IP6}/64")
        bring_up(self.internet, "net0", f"{WEB_IP}/24", f"{WEB_IP6}/64")
        batch(self.exit, f"route add default via {WEB_IP}", f"route add ::/0 via {WEB_IP6}")

    def _exit_has_settled(self) -> bool:
        return link_local_addresses(self.exit) == 1 + (0 if self._one_uplink else len(self.clients))


@contextmanager
def new_world(clients: int = 2, *, one_uplink: bool = False) -> Iterator[World]:
    """A world, removed with everything in it when the block ends, or when building it fails half-way."""
    with ExitStack() as stack:
        yield World(stack, clients, one_uplink=one_uplink)


_WATCH = f"""
table inet watch {{
  counter from_exit {{ }}
  chain input {{
    type filter hook prerouting priority 0;
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert }} accept
    ip saddr {EXIT_IP} counter name from_exit
    ip6 saddr {EXIT_IP6} counter name from_exit
  }}
}}
"""
