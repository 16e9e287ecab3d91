"""POST /v1/sessions: what comes back, and where secrets do not go."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from appliance.domain.clock import rfc3339
from appliance.domain.entities import Reason
from appliance.domain.ids import token_hash
from appliance.domain.tiers import Tier
from appliance.network.wireguard import keys
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions as session_rows
from appliance.store.queries import tokens as token_rows
from tests.support.api.answers import refused
from tests.support.api.exit_under_test import SERVER_KEY, ExitUnderTest, new_key, on_exit, serving, until

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


ITS_OWN, GIVEN = "9.9.9.9, 2620:fe::fe", "1.1.1.1, 2606:4700:4700::1111, 10.0.0.53"


@pytest.mark.parametrize(
    ("dns", "ipv6", "line"),
    [
        (None, True, ITS_OWN),
        (None, False, "9.9.9.9"),
        (False, True, None),
        (False, False, None),
        (GIVEN.split(", "), True, GIVEN),
        (GIVEN.split(", "), False, "1.1.1.1, 10.0.0.53"),
        (["2606:4700:4700:0::1111"], True, "2606:4700:4700::1111"),
    ],
)
@on_exit('dns = ["9.9.9.9", "2620:fe::fe"]\n')
async def test_dns_is_the_clients_to_choose(exit_: ExitUnderTest, dns: object, ipv6: bool, line: str | None) -> None:
    """Left out or null: the operator's; false: no line; addresses: these."""
    opened = await (await exit_.client()).open(dns=dns, ipv6=ipv6)
    found = [each.removeprefix("DNS = ") for each in lines(opened["wg_config"]) if each.startswith("DNS")]
    assert found == ([] if line is None else [line])


@on_exit('dns = ["9.9.9.9"]\n')
async def test_dns_left_out_is_the_operators(exit_: ExitUnderTest) -> None:
    """Left out, it is as null."""
    assert "DNS = 9.9.9.9" in lines((await (await exit_.client()).open())["wg_config"])


BAD_DNS = [True, [], "9.9.9.9", 9, {}, [None], [1], ["resolver.example"], ["9.9.9.9:53"], ["9.9.9.0/24"], [""]]
BAD_DNS += [
    ["::"],
    ["224.0.0.1"],
    ["ff02::fb"],
    ["fe80::1%eth0"],
    ["9.9.9.9\nPostUp = true"],
    ["9.9.9.9"] * 4,
    [["9.9.9.9"]],
]


@pytest.mark.parametrize("dns", BAD_DNS, ids=str)
@on_exit()
async def test_bad_dns_is_named(exit_: ExitUnderTest, dns: object) -> None:
    """Anything else is 400 by the field's name, and opens nothing."""
    before = exit_.holdings()
    answer = await (await exit_.client()).post(dns=dns)
    refused(answer, 400, "dns must be false or a list of 1 to 3 IP addresses")
    assert exit_.holdings() == before


@on_exit()
async def test_dns_that_the_file_could_not_have_is_refused(exit_: ExitUnderTest) -> None:
    """IPv6 resolvers alone, where IPv6 is to be left out: no line would be no answer to that."""
    answer = await (await exit_.client()).post(dns=["2620:fe::fe"], ipv6=False)
    refused(answer, 400, "dns has no IPv4 address, and ipv6 is false")


TEXT, JSON = "text/plain; charset=utf-8", "application/json"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("text/plain", TEXT),
        ("Text/Plain;charset=utf-8", TEXT),
        ("text/*", TEXT),
        ("text/plain, */*;q=0.1", TEXT),
        ("application/json;q=0.5, text/plain;q=0.8", TEXT),
        ("application/json;q=0, text/plain;q=0.001", TEXT),
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("application/json, text/plain, */*", JSON),
        ("text/plain;q=0.5, application/json", JSON),
        ("text/plain;q=0", JSON),
        ("text/plain;q=nan", JSON),
        ("text/plain;q=2", JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
        ("image/png", JSON),
        (",;=,", JSON),
    ],
)
@on_exit()
async def test_the_file_alone_for_who_wants_text(exit_: ExitUnderTest, accept: str | None, form: str) -> None:
    """With Accept: text/plain the 201 is the file, as it would stand in the JSON, and a header has the id."""
    ada = await exit_.client()
    text, _ = new_key()
    headers = ada.headers | ({} if accept is None else {"Accept": accept})
    body = {"region": "fsn", "client_public_key": text}
    request = exit_.http.build_request("POST", "/v1/sessions", json=body, headers=headers)
    if accept is None:
        del request.headers["accept"]
    answer = await exit_.http.send(request)
    assert (answer.status_code, answer.headers["content-type"]) == (201, form)
    if form == JSON:
        assert answer.json().keys() == {"id", "public_ip", "wg_config", "expires_at", "tier"}
        return
    again = await ada.open(client_public_key=text)  # with the same key: the same file
    assert answer.text == again["wg_config"]
    status = await ada.status(answer.headers["session-id"])
    assert status["terminated_reason"] == "replaced"


@pytest.mark.parametrize("body", ['{"region":', '{"region": "nowhere"}'])
@on_exit()
async def test_errors_are_json_for_all(exit_: ExitUnderTest, body: str) -> None:
    """A refusal has the shape of all errors, whatever form was wanted."""
    ada = await exit_.client()
    answer = await exit_.http.post("/v1/sessions", content=body, headers=ada.headers | {"Accept": "text/plain"})
    assert answer.headers["content-type"] == JSON
    assert answer.json().keys() >= {"error", "code"}


@pytest.mark.parametrize(
    ("endpoint", "line"),
    [
        ("exit.dyn.example", "exit.dyn.example:443"),
        ("198.51.100.7", "198.51.100.7:443"),
        ("2001:db8::7", "[2001:db8::7]:443"),
        ("", "192.0.2.1:443"),
    ],
)
def test_clients_dial_the_endpoint(tmp_path: Path, endpoint: str, line: str) -> None:
    """The file has the operator's name or address; `public_ip` stays what traffic appears from."""

    async def story() -> None:
        async with serving(tmp_path, f'endpoint = "{endpoint}"\nendpoint_port = 443\n') as exit_:
            opened = await (await exit_.client()).open()
            assert f"Endpoint = {line}" in lines(opened["wg_config"])
            assert opened["public_ip"] == "192.0.2.1"

    asyncio.run(story())


@on_exit()
async def test_an_admins_words_are_the_reason(exit_: ExitUnderTest) -> None:
    """What an admin gave as the reason is what the session's client is told; without that it is `admin`. A note of the
    operators' own, from before that, is not told."""
    ada = await exit_.client()
    with_words, without, reserved, older = [(await ada.open())["id"] for _ in range(4)]
    async with exit_.store.write() as db:
        for session, words in ((with_words, "Wartung: see https://x.example"), (without, ""), (reserved, "expired")):
            await session_rows.mark_closing(db, [session], Reason.ADMIN, words)
        await node_row.request(db)
    await exit_.admin("UPDATE sessions SET state = 'closing', reason = 'admin', note = 'spams' WHERE id = ?", older)
    await exit_.tick()
    told = [(await ada.status(each))["terminated_reason"] for each in (with_words, without, reserved, older)]
    assert told == ["Wartung: see https://x.example", "admin", "admin", "admin"]
    assert (await ada.delete(with_words)).json()["terminated_reason"] == told[0]


@on_exit()
async def test_the_sessions_of_a_token_end_with_it(exit_: ExitUnderTest) -> None:
    """Those that were opened with it, and no others of the account; their reason is admin's."""
    ada = await exit_.client()
    other = replace(ada, token=await exit_.token(ada.account))
    lost, kept = (await ada.open())["id"], (await other.open())["id"]
    async with exit_.store.write() as db:
        ((token_id,),) = await db.execute_fetchall("SELECT id FROM tokens WHERE hash = ?", (token_hash(ada.token),))
        await token_rows.revoke(db, token_id, exit_.clock.wall_ms)
        assert await session_rows.close_of_token(db, token_id) == 1
        await node_row.request(db)
    await exit_.tick()
    assert (await other.status(lost))["terminated_reason"] == "admin"
    assert "terminated_at" not in await other.status(kept)


@on_exit()
async def test_a_token_that_is_revoked_meanwhile_opens_nothing(exit_: ExitUnderTest) -> None:
    """Revoked while the peer is applied: 401, and nothing is left, so that no session of it outlives its end."""
    ada = await exit_.client()
    before = exit_.holdings()
    exit_.tunnel.gate.clear()
    opening = asyncio.create_task(ada.post())
    await until(lambda: exit_.tunnel.waiting, "it is being opened")
    await exit_.admin("UPDATE tokens SET revoked_at = 1 WHERE hash = ?", token_hash(ada.token))
    exit_.tunnel.gate.set()
    refused(await opening, 401, "invalid token")
    assert exit_.holdings() == before
