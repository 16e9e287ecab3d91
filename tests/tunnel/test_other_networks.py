"""The exit's host has other networks than the tunnel: serving does not make it a router between them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.ping import Ping
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB6, WEB_IP, WEB_IP6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

BEHIND = {4: "198.51.100.34", 6: "2001:db8:1:2::2"}  # the second client's, on a network of the exit's host
SWITCHES = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@pytest.fixture
def host(world: World) -> World:
    """The internet's host is the exit's neighbour, and takes the exit for the router to its other networks."""
    world.internet.run("ip", "route", "add", "198.51.100.0/24", "via", EXIT_IP)
    world.internet.run("ip", "-6", "route", "add", "2001:db8:1::/48", "via", EXIT_IP6)
    return world


def routes(host: World, version: int) -> bool:
    """Whether anything gets through between the neighbour and the network behind the exit's host, from either side."""
    ways = ((host.internet, BEHIND[version]), (host.clients[1], {4: WEB_IP, 6: WEB_IP6}[version]))
    return any(space.run("ping", "-c", "1", "-W", "0.4", to, check=False).returncode == 0 for space, to in ways)


def connected(appliance: Appliance, client: Client) -> None:
    client.wg_quick(appliance.open(appliance.token())["wg_config"])
    assert works(client)


def works(client: Client) -> bool:
    return (client.get(f"{WEB}/ip", 5), client.get(f"{WEB6}/ip", 5)) == (EXIT_IP, EXIT_IP6)


@pytest.fixture
def ping(client: Client, tmp_path: Path) -> Iterator[Callable[[], dict[str, Ping]]]:
    with ExitStack() as stack:

        def start() -> dict[str, Ping]:
            running = {}
            for address in (WEB_IP, WEB_IP6):
                running[address] = Ping(client.space, address, tmp_path / f"to {address}")
                stack.callback(running[address].kill)
                running[address].goes_on(3)
            return running

        yield start


@pytest.mark.black_box
def test_serving_makes_no_router(host: World, start_appliance: Callable[..., Appliance], client: Client) -> None:
    """Clients' traffic passes, in both IP versions, and no other: the host's own switch for IPv4 stays off."""
    appliance = start_appliance()
    connected(appliance, client)
    assert host.exit.run("sysctl", "-n", SWITCHES[4]).stdout.strip() == "0"
    assert [version for version in (4, 6) if routes(host, version)] == []
    appliance.stop()


def test_a_program_that_makes_it_a_router_later_is_served(
    host: World,
    start_appliance: Callable[..., Appliance],
    client: Client,
    ping: Callable[[], dict[str, Ping]],
    show: Callable[[str], None],
) -> None:
    """What another program switches on is forwarded at once, also where that was on already; what it switches off is
    not. Clients notice nothing, or for a moment. What it left on stays on after the appliance."""
    appliance = start_appliance()
    connected(appliance, client)
    pings = ping()
    for version, switch in SWITCHES.items():
        assert not routes(host, version)
        host.exit.run("sysctl", "-qw", f"{switch}=1")
        until(lambda version=version: routes(host, version), f"IPv{version} is forwarded")
    host.exit.run("sysctl", "-qw", f"{SWITCHES[4]}=0")
    until(lambda: not routes(host, 4), "IPv4 is not forwarded")
    for address, each in pings.items():
        each.goes_on(5)
        outages = each.stop().outages
        show(f"{address}: lost {outages}")
        assert len(outages) <= (address == WEB_IP)
    assert works(client)
    host.exit.run("sysctl", "-qw", f"{SWITCHES[4]}=1")
    until(lambda: routes(host, 4), "IPv4 is forwarded")
    appliance.kill()
    appliance.start()
    assert all(routes(host, version) for version in (4, 6))
    with pytest.raises(AssertionError, match="the exit is not as it was"):  # it is as the other program has made it
        appliance.stop()
    assert all(routes(host, version) for version in (4, 6))


def test_as_a_container_engine_switches_ipv6_on(
    host: World, start_appliance: Callable[..., Appliance], client: Client
) -> None:
    """A program that looks first, finds IPv6 forwarding on, and sets only what later interfaces begin with."""
    appliance = start_appliance()
    connected(appliance, client)
    host.exit.run("sysctl", "-qw", "net.ipv6.conf.default.forwarding=1")
    until(lambda: routes(host, 6), "IPv6 is forwarded")
    assert not routes(host, 4)
    appliance.kill()  # it would leave that on


def rename(host: World, link: str, name: str) -> None:
    """Renames a link of the exit to the internet, which loses its routes and IPv6 address meanwhile."""
    steps = f"""
link set {link} down
link set {link} name {name}
link set {name} up
address add {EXIT_IP6}/64 dev {name} nodad
route add default via {WEB_IP}
route add ::/0 via {WEB_IP6}
"""
    host.exit.run("ip", "-batch", "-", text_input=steps)


def test_a_renamed_uplink_makes_no_router(
    host: World, start_appliance: Callable[..., Appliance], client: Client
) -> None:
    """Its forwarding stays the appliance's own under the new name, while serving, after a start, and at the stop."""
    appliance = start_appliance()
    connected(appliance, client)
    rename(host, "wan", "isp0")
    until(lambda: works(client), "clients are served")
    until(lambda: not routes(host, 4), "nothing else is forwarded")
    appliance.kill()
    rename(host, "isp0", "wan")
    appliance.start()
    until(lambda: works(client), "clients are served")
    assert not routes(host, 4)
    appliance.stop()


def test_two_appliances_forward_for_their_own_clients(
    host: World, start_appliance: Callable[..., Appliance], clients: list[Client]
) -> None:
    """Neither drops what the other forwards, whichever was first, and together they make no router either."""
    second = {
        "wireguard": {
            "interface": host.interface("y"),
            "listen_port": 51821,
            "endpoint_port": 51821,
            "subnet": "10.102.0.0/24",
            "subnet6": "fd65:7869:7401::/112",
        },
        "api": {"listen": "127.0.0.1:8081"},
        "metrics": {"listen": ""},
    }
    both = [start_appliance(), start_appliance(**second)]
    for appliance, client in zip(both, clients, strict=True):
        connected(appliance, client)
    assert all(works(client) for client in clients)
    clients[1].down()  # what follows is sent past its tunnel
    assert [version for version in (4, 6) if routes(host, version)] == []
    for appliance in both:
        appliance.kill()  # each has begun with a host that was without the other, or with it


def test_the_operator_has_it_forward_others(
    host: World, start_appliance: Callable[..., Appliance], client: Client
) -> None:
    """`egress.forward_others` makes it a router between its networks, and a reload without it ends that."""
    appliance = start_appliance(egress={"forward_others": True})
    connected(appliance, client)
    assert all(routes(host, version) for version in (4, 6))
    appliance.configure(egress={"forward_others": False})
    appliance.reload()
    until(lambda: not any(routes(host, version) for version in (4, 6)), "nothing else is forwarded")
    assert works(client)
    appliance.configure(egress={"forward_others": True})
    appliance.reload()
    until(lambda: all(routes(host, version) for version in (4, 6)), "it is forwarded")


def test_what_a_bridge_carries_between_its_ports_is_not_forwarded(
    host: World, start_appliance: Callable[..., Appliance], client: Client
) -> None:
    """Where bridged packets pass the firewall too, machines on one bridge of the host reach each other."""
    host.exit.run("sh", "-ec", _BRIDGE.format(one=host.internet.name, two=host.clients[1].name))
    host.internet.run("sh", "-ec", _PORT.format(number=10))
    host.clients[1].run("sh", "-ec", _PORT.format(number=20))
    appliance = start_appliance()
    connected(appliance, client)
    assert not routes(host, 4)
    for address in ("192.0.2.20", "2001:db8:b::20"):
        host.internet.run("ping", "-c", "1", "-W", "5", address)


@pytest.mark.parametrize("others", [False, True], ids=["nobody needs it", "another program needs it"])
def test_what_an_earlier_version_switched_on_is_given_back(
    host: World,
    start_appliance: Callable[..., Appliance],
    client: Client,
    ping: Callable[[], dict[str, Ping]],
    show: Callable[[str], None],
    others: bool,
) -> None:
    """An upgrade from a version that made the host a router: clients' tunnels stand, at most a second is lost, and the
    host is none, unless another program's rules forward."""
    appliance = start_appliance(wireguard={"keep_on_exit": True})
    connected(appliance, client)
    pings = ping()
    appliance.kill()
    host.exit.run("sysctl", "-qw", f"{SWITCHES[4]}=1", f"{SWITCHES[6]}=1")
    if others:
        host.exit.run("nft", "-f", "-", text_input=_CONTAINERS)
    earlier = {"net/ipv4/ip_forward": "0", "net/ipv6/conf/all/forwarding": "0"}
    record = {"boot_id": BOOT_ID.read_text(encoding="ascii").strip(), "values": earlier}
    (appliance.state / "sysctls.json").write_text(json.dumps(record), encoding="utf-8")
    host.exit.run("nft", "flush", "chain", "inet", "wg_appliance", "transit")
    assert all(routes(host, version) for version in (4, 6))
    appliance.start()
    until(lambda: routes(host, 4) is others, "IPv4 is forwarded where it is needed")
    until(lambda: not routes(host, 6), "IPv6 is forwarded for clients alone")
    assert host.exit.run("sysctl", "-n", SWITCHES[4]).stdout.strip() == str(int(others))
    assert ("table ip containers needs it" in appliance.log()) is others
    for address, each in pings.items():
        each.goes_on(5)
        show(f"{address}: lost {each.stop().outages}")
    assert works(client)
    appliance.stop()


_BRIDGE = """
ip link add br0 type bridge
ip link add p1 type veth peer name p0 netns {one}
ip link add p2 type veth peer name p0 netns {two}
# Their own addresses would come when their other ends are up, at any time: the host is to be as it was found.
ip link set p1 addrgenmode none
ip link set p2 addrgenmode none
ip link set br0 addrgenmode none
ip link set p1 master br0 up
ip link set p2 master br0 up
ip address add 192.0.2.1/24 dev br0
ip address add 2001:db8:b::1/64 dev br0 nodad
ip link set br0 up
sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1
"""
_PORT = """
ip address add 192.0.2.{number}/24 dev p0
ip address add 2001:db8:b::{number}/64 dev p0 nodad
ip link set p0 up
"""
_CONTAINERS = """
table ip containers {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
  }
}
"""


def test_a_lost_record_of_sysctls_makes_no_router(
    host: World, start_appliance: Callable[..., Appliance], client: Client
) -> None:
    """Where tunnels are up: nothing passes but clients' traffic, and the host is left as it was."""
    for link in ("default", *host.exit.links_with_ipv6()):  # what no router has need to change
        host.exit.run("sysctl", "-qw", f"net.ipv6.conf.{link}.accept_ra=0")
    appliance = start_appliance(wireguard={"keep_on_exit": True})
    connected(appliance, client)
    appliance.stop()
    (appliance.state / "sysctls.json").unlink()
    appliance.configure(wireguard={"keep_on_exit": False})
    appliance.start()
    assert works(client)
    assert [version for version in (4, 6) if routes(host, version)] == []
    appliance.stop()
