"""Where the self-test's client and target are, and what must be seen of them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from appliance.config.load import parse_settings
from appliance.domain.errors import HostError
from appliance.domain.tiers import Tier
from appliance.ops.selftest.plan import IPV4, IPV6, RANGES, choose_addresses, dialled, names, roomiest_tier


def networks(*texts: str) -> list:
    return [ip_network(text) for text in texts]


def test_names_are_those_of_one_appliance() -> None:
    """They are the same in every run, differ between two appliances of a host, and fit an interface (15 characters)."""
    assert names("wga0") == names("wga0")
    first, second = names("wga0"), names("fifteen-letters")
    everything = [*vars_of(first), *vars_of(second)]
    assert len(set(everything)) == 6
    assert max(map(len, everything)) <= 15


def vars_of(found: object) -> list[str]:
    return [getattr(found, name) for name in ("client_link", "target_link", "tunnel")]


def test_addresses_are_four_on_two_links() -> None:
    """Where nothing is used: two networks of four, the host's end first, in the first documentation range."""
    a = choose_addresses(IPV4, [])
    assert [str(address) for address in (a.client_gateway, a.client, a.target_gateway, a.target)] == [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.5",
        "192.0.2.6",
    ]


@pytest.mark.parametrize(
    ("used", "client"),
    [
        ("192.0.2.5/32", "192.0.2.10"),
        ("192.0.2.0/25", "192.0.2.130"),
        ("192.0.2.0/24", "198.51.100.2"),
        ("192.0.0.0/8", "198.51.100.2"),
        ("2001:db8::/32", "192.0.2.2"),
    ],
)
def test_what_is_used_is_avoided(used: str, client: str) -> None:
    """No address of a network that the host has a route to; the default route is none, and neither is IPv6's."""
    assert str(choose_addresses(IPV4, networks("0.0.0.0/0", "::/0", used)).client) == client


def test_no_range_is_left() -> None:
    """It says which ranges were looked at, and what takes them."""
    with pytest.raises(HostError, match=r"192\.0\.2\.0/24.* all routed on this host or in egress\.extra_block"):
        choose_addresses(IPV4, RANGES)


def test_ipv6_addresses() -> None:
    """Two /64, of which neither is one that the host has a route to."""
    a = choose_addresses(IPV6, networks("::/0", "2001:db8::/64", "192.0.2.0/24"))
    assert [str(address) for address in (a.client_gateway, a.client, a.target_gateway, a.target)] == [
        "2001:db8:0:2::1",
        "2001:db8:0:2::2",
        "2001:db8:0:3::1",
        "2001:db8:0:3::2",
    ]


A4 = choose_addresses(IPV4, [])


@pytest.mark.parametrize(
    ("public_ip", "own", "dials"),
    [
        ("203.0.113.1", "203.0.113.1", "203.0.113.1"),
        ("203.0.113.1", "10.0.0.1", A4.client_gateway),
        ("2001:db8::1", "2001:db8::1", A4.client_gateway),
    ],
    ids=["the host's own", "behind a 1:1 NAT", "IPv6"],
)
def test_what_is_dialled(public_ip: str, own: str, dials: object) -> None:
    """The public address where it is the host's own, over IPv4. Else the host's end of the client's link."""
    assert str(dialled(ip_address(public_ip), A4, [ip_address(own)])) == str(dials)


@pytest.mark.parametrize(
    ("toml", "tier"),
    [
        ("", Tier.FREE),
        ('[tiers.free]\nbytes_limit = "1 MiB"', Tier.ANONYMOUS),
        ("[tiers.anonymous]\nbytes_limit = 0", Tier.ANONYMOUS),
        ("[tiers.anonymous]\nbytes_limit = 0\n[tiers.free]\nbytes_limit = 0", Tier.FREE),
    ],
)
def test_the_roomiest_unpaid_tier_is_taken(toml: str, tier: Tier) -> None:
    """The one with more room, never the paid one, whose sessions stand on invoices."""
    assert roomiest_tier(parse_settings(toml, {}, "host").tiers) == tier
