"""Which clients' addresses routes and rules of a host single out."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address, ip_network

import pytest

from appliance.network import singled_out
from appliance.network.netlink import constants
from appliance.network.netlink.codec import attribute

NET, NET6 = ip_network("10.101.0.0/24"), ip_network("fd65:7869:7400::/112")


def header(family: int, first: int, second: int = 0) -> bytes:
    return struct.pack("=BBB9x", family, first, second)


def route(to: str) -> bytes:
    network = ip_network(to)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return header(family, network.prefixlen) + attribute(constants.RTA_DST, network.network_address.packed)


def rule(attribute_kind: int, network_text: str) -> bytes:
    network = ip_network(network_text)
    lengths = (network.prefixlen, 0) if attribute_kind == constants.FRA_DST else (0, network.prefixlen)
    return header(socket.AF_INET, *lengths) + attribute(attribute_kind, network.network_address.packed)


@pytest.mark.parametrize(
    ("to", "client"),
    [
        ("10.101.0.64/26", "10.101.0.64"),
        ("10.101.0.0/25", "10.101.0.2"),
        ("10.101.0.77/32", "10.101.0.77"),
        ("fd65:7869:7400::8/125", "fd65:7869:7400::8"),
        ("fd65:7869:7400::/120", "fd65:7869:7400::2"),
    ],
)
def test_a_part_of_the_subnet_has_a_client(to: str, client: str) -> None:
    """The first of its addresses that a client can have."""
    net = NET if ip_address(client).version == 4 else NET6
    assert list(singled_out.by_routes([route(to)], net)) == [ip_address(client)]


@pytest.mark.parametrize(
    "to",
    [
        *("10.101.0.0/24", "10.101.0.0/16", "10.102.0.0/26", "10.101.0.0/32", "10.101.0.1/32", "10.101.0.255/32"),
        *("10.101.0.0/31", "fd65:7869:7400::8/125", "0.0.0.0/0"),
    ],
)
def test_other_routes_have_none(to: str) -> None:
    """What has all clients in it or none, and what is the subnet's or the exit's own. The first one always counts."""
    assert set(singled_out.by_routes([route(to)], NET)) <= {NET[2]}


def test_rules_for_both_directions_count() -> None:
    """A rule that singles out by the source, and one that does by the destination."""
    rules = [rule(constants.FRA_SRC, "10.101.0.5/32"), rule(constants.FRA_DST, "10.101.0.128/25")]
    rules.append(rule(constants.FRA_DST, "10.0.0.0/8"))
    assert list(singled_out.by_rules(rules, NET)) == [ip_address("10.101.0.5"), ip_address("10.101.0.128")]


def test_a_cut_message_has_none() -> None:
    """An attribute that is too short is no address."""
    cut = header(socket.AF_INET, 32) + attribute(constants.RTA_DST, b"\x0a")
    assert list(singled_out.by_routes([cut], NET)) == []
