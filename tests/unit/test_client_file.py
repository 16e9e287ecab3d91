"""What a client's file may name: one rule for the exit that writes it and the client that dials by it."""

from __future__ import annotations

import json

import pytest

from appliance.client.tunnel.wg_config import parse
from appliance.config.load import parse_settings
from appliance.domain.errors import ConfigError, HostError
from tests.support.client.scripted_api import CONFIG

NAMES = [
    "exit.3com",
    "1.2.3.4x",
    "7.exit",
    "x.0xg",
    "3com",
    "localhost",
    "a-1.b--2.c3",
    f"{'a' * 63}.{'b' * 63}",
    "x.1e3",
]
NO_NAMES = [
    "x.7",
    "127.1",
    "0x7f.1",
    "x.0x",
    "x.0X7F",
    "x.08",
    "017",
    "exit_1.example",
    "-x.example",
    "x-",
    "x..y",
    "x.",
    ".x",
]
ADDRESSES = ["192.0.2.7", "2001:db8::7"]
NO_EXITS = [
    "0.0.0.0",  # noqa: S104 (a value that is refused)
    "0.1.2.3",
    "169.254.7.7",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "ff02::1",
]
MAPPED = "::ffff:192.0.2.1"
COMPATIBLE = "::192.0.2.1"


def is_served(key: str, value: object) -> bool:
    try:
        parse_settings(f"[wireguard]\n{key} = {json.dumps(value)}\n", {}, "host")
    except ConfigError:
        return False
    return True


def is_dialled(line: str) -> bool:
    old = "Endpoint = 203.0.113.1:51820" if line.startswith("Endpoint") else "MTU = 1420"
    try:
        parse(CONFIG.replace(old, line), ipv6=True)
    except HostError:
        return False
    return True


@pytest.mark.parametrize("name", [*NAMES, *NO_NAMES, *ADDRESSES, *NO_EXITS, MAPPED, COMPATIBLE])
def test_an_endpoint_that_is_served_is_dialled(name: str) -> None:
    """What `serve` takes, `connect` takes, and nothing else: a name may end in a label that begins with a digit."""
    host = f"[{name}]" if ":" in name else name
    expected = name in (*NAMES, *ADDRESSES)
    assert (is_served("endpoint", name), is_dialled(f"Endpoint = {host}:51820")) == (expected, expected)


@pytest.mark.parametrize(
    "resolvers",
    [
        ["9.9.9.9"],
        ["9.9.9.9", "2620:fe::fe", "10.0.0.53", "192.168.1.53", "100.64.0.1"],
        [f"192.0.2.{last}" for last in range(1, 9)],
        [f"192.0.2.{last}" for last in range(1, 10)],
        *([address] for address in (*NO_EXITS, MAPPED, COMPATIBLE, "127.0.0.53", "::1")),
    ],
)
def test_resolvers_that_are_served_are_asked(resolvers: list[str]) -> None:
    """Eight at most, none of which is another machine for each client."""
    served = is_served("dns", resolvers)
    assert served == is_dialled(f"DNS = {', '.join(resolvers)}")
    assert served == (len(resolvers) <= 8 and resolvers[0] in ("9.9.9.9", "192.0.2.1"))


def test_too_many_resolvers_are_counted() -> None:
    """On both sides the message says how many may be."""
    many = [f"192.0.2.{last}" for last in range(1, 12)]
    with pytest.raises(ConfigError, match=r"wireguard\.dns = .*must be a list of at most 8 IP addresses"):
        parse_settings(f"[wireguard]\ndns = {json.dumps(many)}\n", {}, "host")
    with pytest.raises(HostError, match="DNS has 11 addresses, more than 8"):
        parse(CONFIG.replace("MTU = 1420", f"DNS = {', '.join(many)}"), ipv6=True)
