"""The client's side of the self-test's tunnel: what it takes from a wg-quick file, and its requests."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

import pytest

from appliance.client.tunnel.device_config import DeviceConfig, device_config
from appliance.client.tunnel.wg_config import parse
from appliance.domain.errors import HostError
from appliance.network.wireguard.client_config import ClientConfig, Endpoint, render
from appliance.network.wireguard.encode import dial_body
from appliance.network.wireguard.tunnel import DeviceChange, Prefix, RemotePeer
from appliance.network.wireguard.uapi import dial_request

SERVER = bytes(range(32))
PRIVATE_KEY = bytes(32 * [7])
REMOTE = RemotePeer(SERVER, Endpoint(IPv4Address("192.0.2.1"), 51820), 25)
CONFIG = render(
    ClientConfig(
        None,
        [IPv4Address("10.101.0.2"), IPv6Address("fd00::2")],
        1420,
        (),
        SERVER,
        Endpoint(IPv4Address("192.0.2.1"), 51820),
        25,
        True,
    )
)


def read_device_config(text: str) -> DeviceConfig:
    return device_config(parse(text, ipv6=True))


def test_what_the_api_gives_is_read() -> None:
    """Addresses, MTU, and the server's key and endpoint, as they were rendered."""
    device_config = read_device_config(CONFIG)
    own = (Prefix(IPv4Address("10.101.0.2").packed, 32), Prefix(IPv6Address("fd00::2").packed, 128))
    assert (device_config.addresses, device_config.mtu, device_config.server) == (own, 1420, REMOTE)


def test_an_endpoint_of_ipv6() -> None:
    """In brackets in both texts; to the kernel a sockaddr_in6."""
    device_config = read_device_config(CONFIG.replace("192.0.2.1:51820", "[2001:db8::1]:51820"))
    assert device_config.server.endpoint == Endpoint(IPv6Address("2001:db8::1"), 51820)
    assert b"endpoint=[2001:db8::1]:51820\n" in dial_request(device_config.server, PRIVATE_KEY)
    address = bytes.fromhex("0a00 ca6c 00000000 20010db8000000000000000000000001 00000000")
    assert address in dial_body("wg0", device_config.server, PRIVATE_KEY)


def test_a_name_is_resolved_first() -> None:
    """A device is told an address: what is still a name is refused."""
    with pytest.raises(HostError, match=r"exit\.example has not been resolved"):
        read_device_config(CONFIG.replace("192.0.2.1", "exit.example"))


@pytest.mark.parametrize("seconds", [0, 7, 65535])
def test_the_keepalive_is_the_files(seconds: int) -> None:
    """As its operator has it for this exit, off too."""
    server = read_device_config(CONFIG.replace("PersistentKeepalive = 25", f"PersistentKeepalive = {seconds}")).server
    assert server.keepalive_s == seconds
    assert f"persistent_keepalive_interval={seconds}\n".encode() in dial_request(server, PRIVATE_KEY)


def test_a_file_without_an_mtu() -> None:
    """It may be left out of the file; then it is what wg-quick takes by itself on Ethernet."""
    assert read_device_config(CONFIG.replace("MTU = 1420\n", "")).mtu is None


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("Address", ""),
        ("PublicKey", ""),
        ("Endpoint", ""),
        ("Address", "x"),
        ("PublicKey", "x"),
        ("MTU", "x"),
        ("Endpoint", "1.x.2:1"),
        ("Endpoint", "192.0.2.1:65536"),
        ("MTU", "0"),
        ("MTU", "99999999999"),
    ],
)
def test_what_is_no_config_is_refused(line: str, value: str) -> None:
    """A line that is missing, or is not what it should be, is an error that says so; no traceback."""
    broken = re.sub(rf"^{line} = .*$", f"{line} = {value}" if value else "", CONFIG, flags=re.MULTILINE)
    with pytest.raises(HostError, match="wg_config is refused"):
        read_device_config(broken)


def test_dialling_in_the_text_protocol() -> None:
    """The peer's lines follow its key (https://www.wireguard.com/xplatform/)."""
    assert dial_request(REMOTE, PRIVATE_KEY).decode() == (
        f"set=1\nprivate_key={'07' * 32}\nreplace_peers=true\npublic_key={SERVER.hex()}\nendpoint=192.0.2.1:51820\n"
        "persistent_keepalive_interval=25\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n\n"
    )


def test_dialling_by_the_kernel() -> None:
    """The endpoint is a sockaddr_in: family in host order, port and address in network order."""
    body = dial_body("wg0", REMOTE, PRIVATE_KEY)
    assert bytes.fromhex("ca6c c0000201 0000000000000000") in body
    assert SERVER in body


def test_dialling_again_with_the_same_key() -> None:
    """The device keeps its key; no other peer stays, so that this one is new, and is dialled at once."""
    text, body = dial_request(REMOTE, None), dial_body("wg0", REMOTE, None)
    assert b"private_key" not in text
    assert b"\nreplace_peers=true\n" in text
    assert bytes.fromhex("0800 0500 01000000") in body
    assert PRIVATE_KEY not in body


def test_the_private_key_is_not_shown() -> None:
    """A printed change does not show it, neither whole nor in part."""
    assert "private" not in repr(DeviceChange(PRIVATE_KEY))
