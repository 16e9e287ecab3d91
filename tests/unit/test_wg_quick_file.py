"""The wg-quick file, whole."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from appliance.network.wireguard.client_config import ClientConfig, Endpoint, render
from appliance.network.wireguard.keys import encode

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE, PUBLIC, SERVER = (bytes([n]) * 32 for n in (1, 2, 3))
V4, V6 = ip_address("10.101.0.2"), ip_address("fd65:7869:7400::2")
FULL = ClientConfig(
    key_pair=(PRIVATE, PUBLIC),
    addresses=[V4, V6],
    mtu=1420,
    dns=[ip_address("9.9.9.9"), ip_address("2620:fe::fe")],
    server_public_key=SERVER,
    endpoint=Endpoint(ip_address("192.0.2.1"), 51820),
    keepalive=25,
    ipv6=True,
)

WHOLE = f"""\
[Interface]
PrivateKey = {encode(PRIVATE)}
# PublicKey = {encode(PUBLIC)}
Address = 10.101.0.2/32, fd65:7869:7400::2/128
MTU = 1420
DNS = 9.9.9.9, 2620:fe::fe

[Peer]
PublicKey = {encode(SERVER)}
Endpoint = 192.0.2.1:51820
AllowedIPs = 0.0.0.0/0, ::/0
PersistentKeepalive = 25
"""

BARE = f"""\
[Interface]
Address = 10.101.0.2/32
MTU = 1280

[Peer]
PublicKey = {encode(SERVER)}
Endpoint = [2001:db8::1]:443
AllowedIPs = 0.0.0.0/0
PersistentKeepalive = 0
"""


def test_a_file_has_every_line_in_order() -> None:
    """Every line a file can have, in order."""
    assert render(FULL) == WHOLE


def test_a_minimal_file_leaves_out_what_is_not_there() -> None:
    """The client's own key, no resolver, no IPv6 in the tunnel, an IPv6 endpoint."""
    config = replace(FULL, key_pair=None, addresses=[V4], dns=[], ipv6=False, mtu=1280, keepalive=0)
    assert render(replace(config, endpoint=Endpoint(ip_address("2001:db8::1"), 443))) == BARE


@pytest.mark.parametrize(("ipv6", "line"), [(True, "DNS = 9.9.9.9, 2620:fe::fe"), (False, "DNS = 9.9.9.9")])
def test_without_ipv6_only_ipv4_resolvers_are_named(ipv6: bool, line: str) -> None:
    """Without IPv6 only IPv4 resolvers are named."""
    assert line in render(replace(FULL, ipv6=ipv6)).splitlines()


def test_no_resolver_is_no_line() -> None:
    """Where only IPv6 resolvers are configured, a file without IPv6 has no DNS line at all."""
    assert "DNS" not in render(replace(FULL, dns=[ip_address("2620:fe::fe")], ipv6=False))


def test_the_private_key_is_in_the_file_alone() -> None:
    """The private key is in the file and in no printed form of the object."""
    assert encode(PRIVATE) in render(FULL)
    assert str(PRIVATE) not in repr(FULL)


@pytest.mark.skipif(shutil.which("wg-quick") is None, reason="NOT TESTED: wg-quick is not installed")
@pytest.mark.parametrize("text", [WHOLE, BARE], ids=["whole", "bare"])
def test_wg_quick_reads_it(text: str, tmp_path: Path) -> None:
    """wg-quick itself takes its own lines out and leaves those that wg(8) knows."""
    file = tmp_path / "wg0.conf"
    file.write_text(text, encoding="ascii")
    file.chmod(0o600)
    stripped = subprocess.run(["wg-quick", "strip", str(file)], capture_output=True, text=True, timeout=20, check=True)
    left = {line.split(" = ")[0] for line in stripped.stdout.splitlines() if " = " in line}
    assert left - {"PrivateKey", "# PublicKey"} == {"PublicKey", "Endpoint", "AllowedIPs", "PersistentKeepalive"}
