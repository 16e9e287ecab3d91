"""What clients are told of the exit, and what its tunnel should hold."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface

import pytest
from msgspec import structs

from appliance.network.exit_node import ClientSettings, Exit, HeldAddresses
from appliance.network.wireguard.tunnel import Prefix
from tests.support.unit.a_session import A_SESSION

EXIT = Exit(
    interface="wga0",
    private_key=b"\x07" * 32,
    public_key=b"\x08" * 32,
    listen_port=51820,
    mtu=1420,
    subnet=IPv4Network("10.101.0.0/24"),
    subnet6=IPv6Network("fd65:7869:7400::/112"),
    client_settings=ClientSettings(443, dns=(), keepalive=25),
)


def prefix(text: str) -> Prefix:
    found = ip_interface(text)
    return Prefix(found.packed, found.network.prefixlen)


@pytest.mark.parametrize(
    ("exit_", "ipv6", "expected"),
    [
        (EXIT, True, {"10.101.0.9/32", "fd65:7869:7400::9/128"}),
        (EXIT, False, {"10.101.0.9/32"}),
        (replace(EXIT, subnet6=None), True, {"10.101.0.9/32"}),
    ],
    ids=["both", "without IPv6", "IPv4 tunnel"],
)
def test_a_peer_may_use_its_own_addresses_alone(exit_: Exit, ipv6: bool, expected: set[str]) -> None:
    """A session's peer may use the addresses at its place in the subnets, and no others."""
    peer = exit_.peer(structs.replace(A_SESSION, address_offset=9, ipv6=ipv6))
    assert peer.public_key == A_SESSION.public_key
    assert peer.allowed_ips == {prefix(text) for text in expected}


def test_the_last_place_of_the_widest_subnet_has_an_ipv6_address() -> None:
    """The last place of the widest subnet has its IPv6 address too."""
    wide = replace(EXIT, subnet=IPv4Network("10.0.0.0/16"))
    assert [str(a) for a in wide.addresses(65534, ipv6=True)] == ["10.0.255.254", "fd65:7869:7400::fffe"]


def test_the_interface_has_the_first_addresses_and_a_peer_a_session() -> None:
    """The interface has the first host address of each subnet, with the subnet's length, and one peer a session."""
    other = structs.replace(A_SESSION, id="ses_2", public_key=b"\x02" * 32, address_offset=3)
    desired = EXIT.desired({s.public_key: s for s in (A_SESSION, other)}, 1380)
    assert desired.addresses == {prefix("10.101.0.1/24"), prefix("fd65:7869:7400::1/112")}
    assert set(desired.peers) == {A_SESSION.public_key, other.public_key}
    assert (desired.listen_port, desired.mtu, desired.public_key) == (51820, 1420, EXIT.public_key)
    assert replace(EXIT, mtu=None).desired({}, 1380).mtu == 1380


def test_clients_dial_the_endpoint_port() -> None:
    """Clients dial the endpoint's port, which may differ from the one listened on."""
    text = EXIT.client_config(A_SESSION, None, ipv6=True)
    assert "Endpoint = 192.0.2.1:443" in text.splitlines()
    assert "PrivateKey" not in text


def test_a_file_names_the_address_that_its_session_was_told() -> None:
    """The file and the session's answers say the same, whichever address the exit has when the file is written."""
    moved = structs.replace(A_SESSION, public_ip="2001:db8::5")
    assert "Endpoint = [2001:db8::5]:443" in EXIT.client_config(moved, None, ipv6=True).splitlines()


def test_the_private_key_is_in_no_printed_form() -> None:
    """The exit's private key is in no printed form."""
    assert "\\x07" not in repr(EXIT)
    assert "\\x07" not in repr(EXIT.desired({}, 1420))


@pytest.mark.parametrize("subnet6", [EXIT.subnet6, None])
def test_addresses_of_all_clients_are_made_when_asked_for(subnet6: IPv6Network | None) -> None:
    """They are those of the sessions and no others, listed or asked about one by one."""
    exit_ = replace(EXIT, subnet6=subnet6)
    held = HeldAddresses(exit_, {2: True, 3: False})
    expected = {exit_.subnet[2], exit_.subnet[3], *([] if subnet6 is None else [subnet6[2]])}
    assert set(held) == expected
    assert len(held) == len(expected)
    every = [address for offset in range(6) for address in EXIT.addresses(offset, ipv6=True)]
    assert {address for address in every if address in held} == expected
    assert ip_address("192.0.2.2") not in held
    assert "10.101.0.2" not in held
