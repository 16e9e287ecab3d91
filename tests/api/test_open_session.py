"""POST /v1/sessions: what comes back, and where secrets do not go."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from appliance.domain.clock import rfc3339
from appliance.domain.ids import token_hash
from appliance.domain.tiers import Tier
from appliance.network.wireguard import keys
from tests.support.api.exit_under_test import SERVER_KEY, ExitUnderTest, new_key, on_exit

if TYPE_CHECKING:
    from pathlib import Path

DAY_MS = 86_400_000
TEXT_OF_SERVER = keys.encode(keys.public_key(SERVER_KEY))


def lines(wg_config: str) -> list[str]:
    return wg_config.splitlines()


@on_exit()
async def test_a_session_is_answered_with_the_contracts_fields(exit_: ExitUnderTest) -> None:
    """201 with exactly the fields of the contract; the session can be asked for at once."""
    ada = await exit_.client()
    answer = await ada.post()
    opened = answer.json()
    assert answer.status_code == 201
    assert opened.keys() == {"id", "public_ip", "wg_config", "expires_at", "tier"}
    assert (opened["public_ip"], opened["tier"]) == ("192.0.2.1", "paid")
    assert opened["expires_at"] == rfc3339(exit_.clock.wall_ms + 30 * DAY_MS)
    assert (await ada.status(opened["id"]))["expires_at"] == opened["expires_at"]
    assert exit_.state_of(opened["id"]) == ("live", None)


@on_exit()
async def test_ids_have_a_prefix_and_96_random_bits(exit_: ExitUnderTest) -> None:
    """Ids have their prefix and 96 random bits in hex, each another."""
    ada = await exit_.client()
    ids = [(await ada.open())["id"] for _ in range(20)]
    assert len(set(ids)) == 20
    for one in ids:
        prefix, secret = one.split("_")
        assert prefix == "ses"
        assert len(bytes.fromhex(secret)) * 8 >= 80


@on_exit('[tiers.free]\nmax_session = "90m"\n')
async def test_the_cutoff_is_that_of_the_tier(exit_: ExitUnderTest) -> None:
    """The hard cutoff is that of the account's tier."""
    opened = await (await exit_.client(tier=Tier.FREE)).open()
    assert opened["tier"] == "free"
    assert opened["expires_at"] == rfc3339(exit_.clock.wall_ms + 90 * 60_000)


@on_exit()
async def test_config_of_server_made_keys(exit_: ExitUnderTest) -> None:
    """A whole wg-quick file, line by line; its private key belongs to the peer that was put in place."""
    opened = await (await exit_.client()).open()
    private_line, public_line, *rest = lines(opened["wg_config"])[1:]
    private = keys.parse_public_key(private_line.removeprefix("PrivateKey = "), "key")
    assert public_line == f"# PublicKey = {keys.encode(keys.public_key(private))}"
    assert lines(opened["wg_config"])[0] == "[Interface]"
    assert rest == [
        "Address = 10.101.0.2/32, fd65:7869:7400::2/128",
        "",
        "[Peer]",
        f"PublicKey = {TEXT_OF_SERVER}",
        "Endpoint = 192.0.2.1:51820",
        "AllowedIPs = 0.0.0.0/0, ::/0",
        "PersistentKeepalive = 25",
    ]
    assert list(exit_.tunnel.peers) == [keys.public_key(private)]


@on_exit()
async def test_config_of_own_key(exit_: ExitUnderTest) -> None:
    """A client that keeps its private key finds no line of it; null is the same as leaving the key out."""
    ada = await exit_.client()
    text, raw = new_key()
    own = (await ada.open(client_public_key=text))["wg_config"]
    made = (await ada.open(client_public_key=None))["wg_config"]
    assert lines(own)[:2] == ["[Interface]", "Address = 10.101.0.2/32, fd65:7869:7400::2/128"]
    assert "PrivateKey" not in own
    assert text not in own
    assert "PrivateKey" in made
    assert raw in exit_.tunnel.peers


@on_exit()
async def test_ipv6_false_leaves_ipv6_out(exit_: ExitUnderTest) -> None:
    """`ipv6` false leaves IPv6 out of the file and of the peer."""
    ada = await exit_.client()
    text, raw = new_key()
    config = (await ada.open(client_public_key=text, ipv6=False))["wg_config"]
    assert "Address = 10.101.0.2/32" in lines(config)
    assert "AllowedIPs = 0.0.0.0/0" in lines(config)
    assert "::" not in config
    assert {len(prefix.address) for prefix in exit_.tunnel.peers[raw].allowed_ips} == {4}


@pytest.mark.parametrize("ipv6", [True, None])
@on_exit()
async def test_ipv6_is_the_default(exit_: ExitUnderTest, ipv6: bool | None) -> None:
    """`ipv6` true or null is the default: the peer may use exactly the two addresses of its file."""
    config = (await (await exit_.client()).open(ipv6=ipv6))["wg_config"]
    addresses = next(line for line in lines(config) if line.startswith("Address")).removeprefix("Address = ")
    (peer,) = exit_.tunnel.peers.values()
    assert {(ip_interface(a).packed, ip_interface(a).network.prefixlen) for a in addresses.split(", ")} == {
        tuple(prefix) for prefix in peer.allowed_ips
    }


@on_exit('subnet6 = ""\n')
async def test_without_subnet6_ipv6_still_goes_into_the_tunnel(exit_: ExitUnderTest) -> None:
    """Without subnet6 the client has no IPv6 address, and its IPv6 still goes into the tunnel, not past it."""
    config = (await (await exit_.client()).open())["wg_config"]
    assert "Address = 10.101.0.2/32" in lines(config)
    assert "AllowedIPs = 0.0.0.0/0, ::/0" in lines(config)


@on_exit('dns = ["10.101.0.1", "fd65:7869:7400::1"]\nmtu = 1380\nendpoint_port = 443\nkeepalive = 15\n')
async def test_the_file_has_the_configured_lines(exit_: ExitUnderTest) -> None:
    """DNS, MTU, port and keepalive are those the operator configured; IPv4-only files name no IPv6 resolver."""
    ada = await exit_.client()
    found = lines((await ada.open())["wg_config"])
    assert "DNS = 10.101.0.1, fd65:7869:7400::1" in found
    assert {"MTU = 1380", "Endpoint = 192.0.2.1:443", "PersistentKeepalive = 15"} <= set(found)
    assert "DNS = 10.101.0.1" in lines((await ada.open(ipv6=False))["wg_config"])


@on_exit(environ={"WG_APPLIANCE_NODE_PUBLIC_IP": "2001:db8::1"})
async def test_an_ipv6_endpoint_is_in_brackets(exit_: ExitUnderTest) -> None:
    """An exit with an IPv6 address is dialled in brackets."""
    opened = await (await exit_.client()).open()
    assert opened["public_ip"] == "2001:db8::1"
    assert "Endpoint = [2001:db8::1]:51820" in lines(opened["wg_config"])


@on_exit()
async def test_no_dns_line_by_default(exit_: ExitUnderTest) -> None:
    """Without a configured resolver there is no DNS line: wg-quick needs resolvconf for one."""
    assert "DNS" not in (await (await exit_.client()).open())["wg_config"]


@on_exit()
async def test_a_request_as_curl_makes_it_is_accepted(exit_: ExitUnderTest) -> None:
    """The body is JSON whatever the Content-Type says; unknown fields are ignored; a lower-case scheme is one."""
    ada = await exit_.client()
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data", None):
        headers = {"Authorization": f"bearer {ada.token}"} | ({"Content-Type": content_type} if content_type else {})
        answer = await exit_.http.post("/v1/sessions", content=b'{"region":"fsn","colour":[1]}', headers=headers)
        assert answer.status_code == 201, (content_type, answer.text)


@on_exit()
async def test_secrets_are_in_neither_store_nor_log(exit_: ExitUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    """Private keys and tokens are in no byte of the store and in no log record, at any level."""
    caplog.set_level(logging.DEBUG)
    ada = await exit_.client()
    opened = await ada.open()
    await ada.delete(opened["id"])
    await exit_.tick()
    private = lines(opened["wg_config"])[1].removeprefix("PrivateKey = ")
    raw = keys.parse_public_key(private, "key")
    secrets = [raw, private.encode(), ada.token.encode(), ada.token.removeprefix("wga_").encode(), SERVER_KEY]
    assert len(caplog.records) > 50  # aiosqlite's own, with every statement and its parameters, are among them
    logged = caplog.text.encode()
    stored = b"".join(file.read_bytes() for file in exit_.path.parent.glob("store.sqlite*"))
    for secret in secrets:
        assert secret not in logged
        assert repr(secret).encode() not in logged
        assert secret not in stored
    assert token_hash(ada.token) in cells(exit_.path)
    assert not set(secrets) & {c.encode() if isinstance(c, str) else c for c in cells(exit_.path)}


def cells(path: Path) -> set[object]:
    """Every value in every table."""
    with closing(sqlite3.connect(path)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {cell for table in tables for row in db.execute(f"SELECT * FROM {table}") for cell in row}  # noqa: S608 - names from the schema
