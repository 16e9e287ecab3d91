"""The client's side of the self-test's tunnel: what it takes from a wg-quick file, and its requests."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from appliance.client.tunnel.peer_config import Call, kernel_body, read_offer, xplatform_request
from appliance.domain.errors import HostError
from appliance.network.wireguard import keys
from appliance.network.wireguard.client_config import ClientConfig, Endpoint, render
from appliance.network.wireguard.tunnel import Prefix

SERVER = bytes(range(32))
CALL = Call(bytes(32 * [7]), SERVER, IPv4Address("192.0.2.1"), 51820)
CONFIG = render(
    ClientConfig(
        None,
        [IPv4Address("10.101.0.2"), IPv6Address("fd00::2")],
        1420,
        (),
        SERVER,
        Endpoint(IPv4Address("192.0.2.1"), 51820),
        25,
        False,
    )
)


def test_what_the_api_gives_is_read() -> None:
    """Addresses, MTU, and the server's key and endpoint, as they were rendered."""
    offer = read_offer(CONFIG)
    own = (Prefix(IPv4Address("10.101.0.2").packed, 32), Prefix(IPv6Address("fd00::2").packed, 128))
    assert (offer.addresses, offer.mtu, offer.server_key) == (own, 1420, SERVER)
    assert offer.endpoint == Endpoint(IPv4Address("192.0.2.1"), 51820)


def test_an_endpoint_of_ipv6() -> None:
    """In brackets in both texts; to the kernel a sockaddr_in6."""
    offer = read_offer(CONFIG.replace("192.0.2.1:51820", "[2001:db8::1]:51820"))
    assert offer.endpoint == Endpoint(IPv6Address("2001:db8::1"), 51820)
    call = Call(bytes(32 * [7]), SERVER, IPv6Address("2001:db8::1"), 51820)
    assert b"endpoint=[2001:db8::1]:51820\n" in xplatform_request(call)
    assert bytes.fromhex("0a00 ca6c 00000000 20010db8000000000000000000000001 00000000") in kernel_body("wg0", call)


def test_a_file_without_an_mtu() -> None:
    """It may be left out of the file; then it is what wg-quick takes by itself on Ethernet."""
    assert read_offer(CONFIG.replace("MTU = 1420\n", "")).mtu == 1420


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("Address", ""),
        ("PublicKey", ""),
        ("Endpoint", ""),
        ("Address", "x"),
        ("PublicKey", "x"),
        ("MTU", "x"),
        ("Endpoint", "x:1"),
        ("Endpoint", "192.0.2.1:65536"),
        ("MTU", "0"),
        ("MTU", "99999999999"),
    ],
)
def test_what_is_no_config_is_refused(line: str, value: str) -> None:
    """A line that is missing, or is not what it should be, is an error that says so; no traceback."""
    broken = re.sub(rf"^{line} = .*$", f"{line} = {value}" if value else "", CONFIG, flags=re.MULTILINE)
    with pytest.raises(HostError, match="wg_config is not one"):
        read_offer(broken)


def test_a_call_in_the_text_protocol() -> None:
    """The peer's lines follow its key (https://www.wireguard.com/xplatform/)."""
    assert xplatform_request(CALL).decode() == (
        f"set=1\nprivate_key={'07' * 32}\nreplace_peers=true\npublic_key={SERVER.hex()}\nendpoint=192.0.2.1:51820\n"
        "persistent_keepalive_interval=25\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n\n"
    )


def test_a_call_to_the_kernel() -> None:
    """The endpoint is a sockaddr_in: family in host order, port and address in network order."""
    body = kernel_body("wg0", CALL)
    assert bytes.fromhex("ca6c c0000201 0000000000000000") in body
    assert SERVER in body


def test_another_call_with_the_same_key() -> None:
    """The device keeps its key; no other peer stays, so that this one is new, and is called at once."""
    again = replace(CALL, private_key=None)
    assert b"private_key" not in xplatform_request(again)
    assert b"\nreplace_peers=true\n" in xplatform_request(again)
    assert bytes.fromhex("0800 0500 01000000") in kernel_body("wg0", again)
    assert CALL.private_key is not None
    assert CALL.private_key not in kernel_body("wg0", again)


def test_the_private_key_is_not_shown() -> None:
    """Neither whole nor in part, whoever prints the call."""
    call = Call(keys.generate_private_key(), SERVER, IPv4Address("192.0.2.1"), 51820)
    assert "private" not in repr(call)
