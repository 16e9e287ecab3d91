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

import secrets
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.tunnel.namespace import Namespace
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

SOCKETS = Path("/var/run/wireguard")  # wireguard-go's, one directory for all network namespaces


class World:
    """The namespaces, by role. Names carry a random part, so runs beside each other do not meet.

    `one_uplink`: the exit has no other link than the one to the internet, as most hosts do, and clients are behind it.
    """

    def __init__(self, stack: ExitStack, clients: int, *, one_uplink: bool = False) -> None:
        self._stack = stack
        self.tag = secrets.token_hex(3)
        stack.callback(self._remove_sockets)
        self.exit = self._namespace("x")
        self.internet = self._namespace("i")
        self.clients = [self._namespace(f"c{number}") for number in range(1, clients + 1)]
        self._one_uplink = one_uplink
        if one_uplink:
            self.internet.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self._join_exit()
        self.internet.run("nft", "-f", "-", text_input=_WATCH)
        self._start_web()

    def renew_exit(self) -> None:
        """The exit's host goes down and comes up anew: a namespace of the same name, and nothing in it but its links.

        What clients have beside their link to it stays, tunnels too.
        """
        self.exit.remove()
        self.exit = self._namespace("x")
        self._join_exit()

    def interface(self, role: str) -> str:
        """A WireGuard interface name of this world's own: userspace sockets are seen from every namespace."""
        return f"wg{self.tag}{role}"

    def packets_from_exit(self) -> int:
        """IP packets (either version; neighbour discovery and ARP apart) the internet has had from the exit."""
        shown = self.internet.run("nft", "list", "counter", "inet", "watch", "from_exit").stdout
        return int(shown.split("packets")[1].split()[0])

    def open_gate(self, gate: str) -> None:
        """Let downloads that trickle until this gate opens go on at full speed."""
        self.internet.run("curl", "-q", "--noproxy", "*", "-sS", "--fail", "-X", "POST", f"{WEB}/open?gate={gate}")

    def _namespace(self, role: str) -> Namespace:
        space = Namespace(f"wgt-{self.tag}-{role}")
        self._stack.callback(space.remove)
        # Addresses count at once: duplicate address detection would keep them tentative for seconds.
        space.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.disable_ipv6=0")
        return space

    def _join_exit(self) -> None:
        self._join_internet()
        for number, client in enumerate(self.clients, start=1):
            self._join_client(number, client)
        until(self._exit_has_settled, "the exit's links have their link-local addresses")

    def _join_internet(self) -> None:
        self._veth(self.exit, "wan", self.internet, "net0")
        _bring_up(self.exit, "wan", f"{EXIT_IP}/24", f"{EXIT_IP6}/64")
        _bring_up(self.internet, "net0", f"{WEB_IP}/24", f"{WEB_IP6}/64")
        _batch(self.exit, f"route add default via {WEB_IP}", f"route add ::/0 via {WEB_IP6}")

    def _join_client(self, number: int, client: Namespace) -> None:
        near, net, net6 = f"lan{number}", 16 * number, f"2001:db8:1:{number}"
        nearest = self.internet if self._one_uplink else self.exit
        self._veth(nearest, near, client, "eth0")
        _bring_up(nearest, near, f"198.51.100.{net + 1}/28", f"{net6}::1/64")
        _bring_up(client, "eth0", f"198.51.100.{net + 2}/28", f"{net6}::2/64")
        _batch(client, f"route add default via 198.51.100.{net + 1}", f"route add ::/0 via {net6}::1")

    def _veth(self, left: Namespace, left_end: str, right: Namespace, right_end: str) -> None:
        _batch(left, f"link add name {left_end} type veth peer name {right_end} netns {right.name}")

    def _exit_has_settled(self) -> bool:
        """A link gets its link-local address last, when the kernel has noticed its carrier."""
        shown = self.exit.run("ip", "-6", "-oneline", "address", "show", "scope", "link").stdout
        return len(shown.splitlines()) == 1 + (0 if self._one_uplink else len(self.clients))

    def _start_web(self) -> None:
        script = str(Path(__file__).with_name("webserver.py"))
        web = self.internet.start(sys.executable, script, str(WEB_PORT), stdout=subprocess.PIPE)
        self._stack.callback(_reap, web)
        assert web.stdout is not None
        self._stack.callback(web.stdout.close)
        assert web.stdout.readline() == b"ready\n", "the web server did not start"

    def _remove_sockets(self) -> None:
        """A killed wireguard-go leaves its socket file behind."""
        for socket in SOCKETS.glob(f"wg{self.tag}*.sock"):
            socket.unlink(missing_ok=True)


@contextmanager
def new_world(clients: int = 2, *, one_uplink: bool = False) -> Iterator[World]:
    """A world, removed with everything in it when the block ends, or when building it fails half-way."""
    with ExitStack() as stack:
        yield World(stack, clients, one_uplink=one_uplink)


def _batch(space: Namespace, *lines: str) -> None:
    """Run `ip` commands in one process: process starts are what an emulated kernel is slowest at."""
    space.run("ip", "-batch", "-", text_input="\n".join(lines) + "\n")


def _bring_up(space: Namespace, link: str, address: str, address6: str) -> None:
    _batch(
        space, f"address add {address} dev {link}", f"address add {address6} dev {link} nodad", f"link set {link} up"
    )


def _reap(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=60)


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
