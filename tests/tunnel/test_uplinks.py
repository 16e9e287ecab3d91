"""By which interface and from which address a host sends to the internet, for each form that its routes can have."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import HostError
from appliance.network import uplinks
from appliance.network.outgoing import read_outgoing
from tests.support.netns import new_namespace
from tests.support.real_backend import NO_ROOT, backend_here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.netns import Namespace

LINKS = """
link add wan type veth peer name far
link add wan2 type veth peer name far2
link set far up
link set far2 up
link set wan up
link set wan2 up
address add 203.0.113.1/24 dev wan
address add 203.0.113.2/24 dev wan
address add 192.0.2.1/24 dev wan2
address add 2001:db8:2::1/64 dev wan nodad
address add 2001:db8:3::1/64 dev wan2 nodad
"""
DEFAULT, DEFAULT2 = "route add default via 203.0.113.10", "route add default via 192.0.2.10"
DEFAULT6, DEFAULT2_6 = "route add ::/0 via 2001:db8:2::10", "route add ::/0 via 2001:db8:3::10"
WAN, WAN2, WAN_6, WAN2_6 = "wan 203.0.113.1", "wan2 192.0.2.1", "wan 2001:db8:2::1", "wan2 2001:db8:3::1"

# What is added to the links, and how the host then sends: IPv4, IPv6.
FORMS = {
    "none": ([], None, None),
    "one": ([DEFAULT, DEFAULT6], WAN, WAN_6),
    "of a table that no rule leads to": ([DEFAULT, f"{DEFAULT2} table 51820", f"{DEFAULT2_6} table 51820"], WAN, None),
    "only of such a table": ([f"{DEFAULT2} table 51820"], None, None),
    "of a table with a rule": (
        [DEFAULT, f"{DEFAULT2} table 51820", "rule add lookup 51820 priority 99"],
        WAN2,
        None,
    ),
    "a rule for marked packets": (
        [DEFAULT, f"{DEFAULT2} table 51820", "rule add fwmark 7 lookup 51820 priority 99"],
        WAN,
        None,
    ),
    "a rule as wg-quick has it": (
        [DEFAULT, "route add default dev wan2 table 51820", "rule add not fwmark 51820 table 51820"],
        WAN2,
        None,
    ),
    "two metrics": (
        [f"{DEFAULT} metric 200", f"{DEFAULT2} metric 100", f"{DEFAULT6} metric 100", f"{DEFAULT2_6} metric 200"],
        WAN2,
        WAN_6,
    ),
    "two halves": (
        [DEFAULT, *(f"route add {half} dev wan2" for half in ("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"))],
        WAN2,
        WAN2_6,
    ),
    "2000::/3": (["route add 2000::/3 via 2001:db8:2::10"], None, WAN_6),
    "a source of its own": ([f"{DEFAULT} src 203.0.113.2"], "wan 203.0.113.2", None),
    "a source of another interface": (
        ["address add 198.51.100.1/32 dev lo", f"{DEFAULT} src 198.51.100.1"],
        "wan 198.51.100.1",
        None,
    ),
    "blackhole before another": (["route add blackhole default metric 1", f"{DEFAULT} metric 9"], None, None),
    "unreachable": (["route add unreachable default", "route add unreachable ::/0"], None, None),
    "prohibited": (["route add prohibit default", "route add prohibit ::/0"], None, None),
    "refused after another": ([f"{DEFAULT} metric 1", "route add unreachable default metric 9"], WAN, None),
    "several hops": (
        ["route add default nexthop via 203.0.113.10 nexthop via 203.0.113.11"],
        WAN,
        None,
    ),
    "a hop that is down": (
        ["route add default nexthop via 203.0.113.10 nexthop via 192.0.2.10", "link set wan2 down"],
        WAN,
        None,
    ),
    "a hop of its own": (
        ["nexthop add id 1 via 192.0.2.10 dev wan2", "route add default nhid 1"],
        WAN2,
        None,
    ),
    "a route to a resolver": ([DEFAULT, "route add 1.1.1.1 dev wan2", "route add 198.41.0.4 dev wan2"], WAN, None),
    "no address for it": (
        [DEFAULT, DEFAULT6, "address del 2001:db8:2::1/64 dev wan", "address del 2001:db8:3::1/64 dev wan2"],
        WAN,
        None,
    ),
}


@pytest.fixture
def space() -> Iterator[Namespace]:
    if backend_here() is None:
        pytest.skip(NO_ROOT)
    with new_namespace() as made:
        made.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.disable_ipv6=0")
        _ip(made, *LINKS.strip().splitlines())
        yield made


def _ip(space: Namespace, *lines: str) -> None:
    command = ["ip", "netns", "exec", space.name, "ip", "-batch", "-"]
    subprocess.run(command, input="\n".join(lines) + "\n", text=True, check=True, timeout=60)


@pytest.mark.parametrize("form", FORMS)
def test_the_way_out_is_what_the_kernel_says(space: Namespace, form: str) -> None:
    """For every form of default route, or none."""
    commands, four, six = FORMS[form]
    _ip(space, *commands)
    with space.entered():
        found = uplinks.uplinks()
    assert {v: f"{each.interface} {each.address}" for v, each in found.items() if each.address is not None} == {
        version: way for version, way in ((4, four), (6, six)) if way is not None
    }


@pytest.mark.parametrize(
    ("commands", "four", "six"),
    [
        ([DEFAULT, DEFAULT6], 1500, 1500),
        (["link set wan mtu 1492", DEFAULT, DEFAULT6], 1492, 1492),
        ([f"{DEFAULT} mtu 1400", f"{DEFAULT6} mtu 1380"], 1400, 1380),
        ([f"{DEFAULT} mtu lock 1400", DEFAULT6], 1400, 1500),
        (["link set wan mtu 1400", f"{DEFAULT} mtu 1450", f"{DEFAULT6} mtu 1450"], 1400, 1400),
    ],
    ids=["the link's", "a smaller link's", "the route's", "the route's, locked", "the smaller one"],
)
def test_the_mtu_is_what_link_and_route_leave(space: Namespace, commands: list[str], four: int, six: int) -> None:
    """A route may have one of its own, as an operator or a router's advertisement has set it."""
    _ip(space, *commands)
    with space.entered():
        assert {version: uplink.mtu for version, uplink in uplinks.uplinks().items()} == {4: four, 6: six}


def test_a_host_without_one_is_told_so(space: Namespace) -> None:
    """In one line that names the key."""
    with space.entered(), pytest.raises(HostError, match=r"^node\.public_ip is auto, .* no default route [^\n]*$"):
        uplinks.default_route_address()


HOP, HOP2 = "nexthop add id 1 via 203.0.113.10 dev wan", "nexthop add id 2 via 192.0.2.10 dev wan2"
# What is added to the links, and by which interfaces the host may then send to the internet.
HOPS = {
    "one": ([HOP2, "route add default nhid 2"], {"wan2"}),
    "a group": ([HOP, HOP2, "nexthop add id 3 group 1/2", "route add default nhid 3"], {"wan", "wan2"}),
    "a hop of IPv6": (["nexthop add id 1 via 2001:db8:3::10 dev wan2", "route add default nhid 1"], {"wan2"}),
    "a link": (["nexthop add id 1 dev wan2", "route add default nhid 1"], {"wan2"}),
    "a blackhole": (["nexthop add id 1 blackhole", "route add default nhid 1"], set()),
    "in two halves": (
        [HOP, HOP2, "route add 0.0.0.0/1 nhid 1", "route add 128.0.0.0/1 nhid 2"],
        {"wan", "wan2"},
    ),
    "beside another": ([HOP2, f"{DEFAULT} metric 9", "route add default nhid 2 metric 1"], {"wan", "wan2"}),
}


@pytest.mark.parametrize("compatible", [True, False])
@pytest.mark.parametrize("form", HOPS)
def test_a_next_hop_object_is_a_way_out(space: Namespace, form: str, compatible: bool) -> None:
    """A default route that is a next hop object is one, also where the kernel does not show its interface beside it."""
    commands, ways = HOPS[form]
    space.run("sysctl", "-qw", f"net.ipv4.nexthop_compat_mode={int(compatible)}")
    _ip(space, *commands)
    with space.entered():
        assert read_outgoing("wga0", [], private_blocked=False, all_interfaces=False).default == ways
        found = uplinks.uplinks()
    assert {each.interface for each in found.values()} <= ways
    assert bool(found) == bool(ways)


@pytest.mark.parametrize(
    ("commands", "asked", "places"),
    [
        ([DEFAULT], "203.0.113.2", ["wan"]),
        ([DEFAULT], "192.0.2.1", ["wan2"]),  # a link with neighbours, whatever the host sends by
        ([DEFAULT2], "203.0.113.1", ["wan"]),
        ([DEFAULT], "198.51.100.1", []),
        (["address add 198.51.100.1/32 dev lo", DEFAULT], "198.51.100.1", ["wan"]),
        (
            ["link add b0 type bridge", "address add 198.51.100.1/24 dev b0", "link set b0 up", DEFAULT],
            "198.51.100.1",
            ["wan"],
        ),
        (
            [
                *("address add 198.51.100.1/32 dev lo", DEFAULT, f"{DEFAULT2} table 9"),
                "rule add from 198.51.100.1 lookup 9",
            ],
            "198.51.100.1",
            ["wan2"],
        ),
        # As clouds give it: the link has one address and no network, and a VPN has taken the default route.
        (
            [
                *("address flush dev wan", "address add 203.0.113.1/32 dev wan"),
                "route add 172.31.1.1 dev wan",
                *("route add default via 172.31.1.1 dev wan", "route add 0.0.0.0/1 dev wan2"),
                "route add 128.0.0.0/1 dev wan2",
            ],
            "203.0.113.1",
            ["wan"],
        ),
        (["address add 2001:db8:9::1/128 dev lo", DEFAULT6], "2001:db8:9::1", ["wan"]),
        ([DEFAULT2_6], "2001:db8:2::1", ["wan"]),
    ],
    ids=[
        *("second address", "second link", "default elsewhere", "not the host's", "loopback", "bridge"),
        *("rule by source", "cloud and VPN", "loopback, IPv6", "default elsewhere, IPv6"),
    ],
)
def test_the_places_of_an_address(space: Namespace, commands: list[str], asked: str, places: list[str]) -> None:
    """The links that have it; of one that leads nowhere, the interface by which the kernel sends from it."""
    _ip(space, *commands)
    with space.entered():
        assert list(uplinks.look(ip_address(asked), without="").places) == places


def test_the_tunnel_is_not_looked_at(space: Namespace) -> None:
    """Neither its addresses nor a way out by it."""
    _ip(space, DEFAULT2)
    with space.entered():
        seen = uplinks.look(ip_address("192.0.2.1"), without="wan2")
    assert (dict(seen.uplinks), seen.places, ip_address("192.0.2.1") in seen.own) == ({}, (), False)
    assert ip_address("203.0.113.1") in seen.own
