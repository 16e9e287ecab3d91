"""The client's side of the self-test's tunnel: what it takes from a wg-quick file, and its requests."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

import pytest

from appliance.errors import HostError
from appliance.selftest.dialling import Call, kernel_body, read_offer, xplatform_request
from appliance.wireguard import keys
from appliance.wireguard.quick import ClientConfig, Endpoint, render
from appliance.wireguard.tunnel import Prefix

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
    """Addresses, MTU and the server's key, as they were rendered."""
    offer = read_offer(CONFIG)
    own = (Prefix(IPv4Address("10.101.0.2").packed, 32), Prefix(IPv6Address("fd00::2").packed, 128))
    assert (offer.addresses, offer.mtu, offer.server_key) == (own, 1420, SERVER)


@pytest.mark.parametrize("line", ["Address", "MTU", "PublicKey"])
@pytest.mark.parametrize("value", ["", "nonsense"])
def test_what_is_no_config_is_refused(line: str, value: str) -> None:
    """A line that is missing, or is not what it should be, is an error that says so; no traceback."""
    broken = re.sub(rf"^{line} = .*$", f"{line} = {value}" if value else "", CONFIG, flags=re.MULTILINE)
    with pytest.raises(HostError, match="wg_config is not one"):
        read_offer(broken)


def test_a_call_in_the_text_protocol() -> None:
    """The peer's lines follow its key (https://www.wireguard.com/xplatform/)."""
    assert xplatform_request(CALL).decode() == (
        f"set=1\nprivate_key={'07' * 32}\npublic_key={SERVER.hex()}\nendpoint=192.0.2.1:51820\n"
        "persistent_keepalive_interval=25\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n\n"
    )


def test_a_call_to_the_kernel() -> None:
    """The endpoint is a sockaddr_in: family in host order, port and address in network order."""
    body = kernel_body("wg0", CALL)
    assert bytes.fromhex("ca6c c0000201 0000000000000000") in body
    assert SERVER in body


def test_the_private_key_is_not_shown() -> None:
    """Neither whole nor in part, whoever prints the call."""
    call = Call(keys.generate_private_key(), SERVER, IPv4Address("192.0.2.1"), 51820)
    assert "private" not in repr(call)
