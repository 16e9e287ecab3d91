"""The ground under the tests of whole fleets: exits, clients and an internet that routes between them.

    client 1 --- 198.51.100.16/28, 2001:db8:1:1::/64 ---+            +--- 203.0.113.16/28, 2001:db8:2:1::/64 --- exit 1
                                                        internet, web
    client 2 --- 198.51.100.32/28, 2001:db8:1:2::/64 ---+            +--- 203.0.113.32/28, 2001:db8:2:2::/64 --- exit 2
    (more where a test asks for them)

Each exit is a host with one uplink, by which it reaches the other exits, the clients and the web. The internet knows
only its own links: a packet that leaves an exit without address translation gets no answer. The way between two exits
can be cut, both ways or one way: what is dropped is dropped without a word, as a broken route does. A host can be lost:
nothing of it is heard any more, not even that its connections end.

    with new_fleet_world(exits=2, clients=1) as world:
        fsn, ams = world.hosts
        world.cut(fsn, ams); world.heal()
        world.lose(ams); world.bring_back(ams)
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from tests.support.tunnel.spaces import SOCKETS, Spaces, batch, bring_up, link_local_addresses, veth
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import WEB_IP, WEB_IP6, WEB_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.tunnel.namespace import Namespace


class ExitSpace:
    """Is the host of an exit, number `number`, with its public addresses."""

    def __init__(self, world: FleetWorld, number: int) -> None:
        self.number = number
        self.ip = f"203.0.113.{16 * number + 1}"
        self.ip6 = f"2001:db8:2:{number}::1"
        self.exit: Namespace = world.new_space(f"x{number}")
        self._world = world

    def interface(self, role: str) -> str:
        return self._world.interface(f"{role}{self.number}")

    @property
    def uplink(self) -> str:
        """The internet's end of its link."""
        return f"net{self.number}"

    def lose(self) -> None:
        self._world.lose(self)

    def bring_back(self) -> None:
        self._world.bring_back(self)

    def renew_exit(self) -> None:
        self._world.renew(self)


class FleetWorld(Spaces):
    """Has the exits' hosts (`hosts`), the clients and the internet."""

    def __init__(self, stack: ExitStack, exits: int, clients: int) -> None:
        super().__init__(stack)
        self.internet = self._namespace("i")
        self.internet.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        batch(self.internet, f"address add {WEB_IP}/32 dev lo", f"address add {WEB_IP6}/128 dev lo")
        self.internet.run("nft", "-f", "-", text_input=_WAYS)
        self._start_web(self.internet, WEB_PORT)
        self.hosts = [ExitSpace(self, number) for number in range(1, exits + 1)]
        self.clients = [self._namespace(f"c{number}") for number in range(1, clients + 1)]
        for host in self.hosts:
            self._join_host(host)
        for number, client in enumerate(self.clients, start=1):
            self._join_client(number, client, self.internet)

    def new_space(self, role: str) -> Namespace:
        return self._namespace(role)

    # Faults --------------------------------------------------------------------------------------------

    def cut(self, one: ExitSpace, other: ExitSpace) -> None:
        """From now on neither hears anything of the other. Clients reach both."""
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def cut_one_way(self, sender: ExitSpace, receiver: ExitSpace) -> None:
        """What `sender` sends to `receiver` is dropped."""
        self._change("add", "cut", f"{sender.ip} . {receiver.ip}", f"{sender.ip6} . {receiver.ip6}")

    def cut_off(self, host: ExitSpace) -> None:
        """Cuts it off from all other exits."""
        for other in self.hosts:
            if other is not host:
                self.cut(host, other)

    def heal(self) -> None:
        """Ends all cuts."""
        self.internet.run("nft", "flush set inet ways cut4; flush set inet ways cut6")

    def lose(self, host: ExitSpace) -> None:
        """The host is dead: first nothing of it is heard any more, then all its processes have gone."""
        self._change("add", "lost", host.ip, host.ip6)
        for pid in host.exit.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not host.exit.running(), f"nothing runs on exit {host.number}")

    def bring_back(self, host: ExitSpace) -> None:
        """Boots the host: it has its links and its files, and nothing runs on it."""
        self.renew(host)
        self._change("delete", "lost", host.ip, host.ip6)

    def renew(self, host: ExitSpace) -> None:
        """The host's namespace is made anew, with its links."""
        batch(self.internet, f"link del {host.uplink}")  # the kernel removes a namespace's links later than its name
        host.exit.remove()
        (SOCKETS / f"{host.interface('x')}.sock").unlink(missing_ok=True)  # /run is empty after a boot
        host.exit = self.new_space(f"x{host.number}")
        self._join_host(host)

    # ---------------------------------------------------------------------------------------------------

    def _change(self, verb: str, what: str, element: str, element6: str) -> None:
        lines = (
            f"{verb} element inet ways {what}4 {{ {element} }}\n",
            f"{verb} element inet ways {what}6 {{ {element6} }}\n",
        )
        self.internet.run("nft", "-f", "-", text_input="".join(lines))

    def _join_host(self, host: ExitSpace) -> None:
        """Its hardware address stays, and with it its link-local one."""
        last = 16 * host.number + 2
        veth(host.exit, "wan", self.internet, host.uplink)
        batch(host.exit, f"link set wan address 02:00:00:00:00:{host.number:02x}")
        bring_up(host.exit, "wan", f"{host.ip}/28", f"{host.ip6}/64")
        bring_up(self.internet, host.uplink, f"203.0.113.{last}/28", f"2001:db8:2:{host.number}::2/64")
        batch(host.exit, f"route add default via 203.0.113.{last}", f"route add ::/0 via 2001:db8:2:{host.number}::2")
        until(lambda: link_local_addresses(host.exit) == 1, "the exit's link has its link-local address")


@contextmanager
def new_fleet_world(exits: int = 2, clients: int = 1) -> Iterator[FleetWorld]:
    """A world, removed with everything in it when the block ends, or when building it fails half-way."""
    with ExitStack() as stack:
        yield FleetWorld(stack, exits, clients)


_WAYS = """
table inet ways {
  set cut4 { type ipv4_addr . ipv4_addr; }
  set cut6 { type ipv6_addr . ipv6_addr; }
  set lost4 { type ipv4_addr; }
  set lost6 { type ipv6_addr; }
  chain prerouting {
    type filter hook prerouting priority 0;
    ip saddr . ip daddr @cut4 drop
    ip6 saddr . ip6 daddr @cut6 drop
    ip saddr @lost4 drop
    ip daddr @lost4 drop
    ip6 saddr @lost6 drop
    ip6 daddr @lost6 drop
  }
}
"""
