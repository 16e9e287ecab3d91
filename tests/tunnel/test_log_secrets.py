"""A whole run's log: every event is there with its ids, and nothing that nobody but the client should know."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.client import CURL, new_key_pair
from tests.support.tunnel.sessions import client_key
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client

STRANGERS = 20
SECRETS = {
    "a key": r"[A-Za-z0-9+/]{43}=",
    "a config": r"PrivateKey|PublicKey|AllowedIPs|\[Peer\]",
    "a client's own address": r"198\.51\.100\.|2001:db8:1:",
    "a client's tunnel address": r"10\.101\.0\.(?!1/)\d|fd65:7869:7400::(?!1/)[0-9a-f]",
    "a token's scheme": r"(?i)bearer",
}


@pytest.mark.parametrize("log_format", [pytest.param("text", marks=pytest.mark.long), "json"])
def test_a_log_shows_no_secret(start_appliance: Callable[..., Appliance], client: Client, log_format: str) -> None:
    """Sessions of all kinds, refusals, garbage and repairs, asked for over the network: none of it shows a token, a
    key, a config or a client's address; sessions and accounts are named by their ids."""
    changes = {"api": {"listen": "0.0.0.0:8080", "insecure_http": True}}
    appliance = start_appliance("--log-format", log_format, **changes)
    token = appliance.token()
    made = appliance.open(token)
    own = new_key_pair()
    first = appliance.open(token, client_public_key=own.public)
    second = appliance.open(token, client_public_key=own.public)
    client.wg_quick(made["wg_config"])
    client.address_seen()
    bad_token = "wga_this-is-no-token-at-all"  # noqa: S105 - a wrong one
    for words in (
        ("-H", f"Authorization: Bearer {bad_token}", "/v1/sessions"),
        ("-H", f"Authorization: Bearer {token}", f"/v1/sessions/{bad_token}%0aforged"),
        ("-H", f"Authorization: Bearer {token}", "-d", f'{{"client_public_key": "{own.private}"}}', "/v1/sessions"),
        ("-X", f"{bad_token} /", "-H", "Host:", "/"),
    ):
        client.space.run(*CURL, *words[:-1], f"http://{EXIT_IP}:8080{words[-1]}", check=False)
    strangers = [new_key_pair().public for _ in range(STRANGERS)]
    repaired = [
        " ".join(f"peer {key} allowed-ips 10.101.0.{100 + n}/32" for n, key in enumerate(strangers)),
        f"peer {client_key(made['wg_config'])} remove",
        f"peer {own.public} allowed-ips 10.101.0.99/32",
    ]
    for tamper in repaired:
        before = appliance.log()
        appliance.space.run("wg", "set", appliance.interface, *tamper.split())
        until(lambda before=before: appliance.log() != before, "it is logged")
    appliance.space.run("ip", "link", "del", appliance.interface)
    until(lambda: len(appliance.peers()) == 2, "the peers are there again")
    client.down()
    appliance.close(second["id"], token)
    appliance.stop()

    log = appliance.log()
    found = {name: re.findall(pattern, log) for name, pattern in SECRETS.items()}
    assert found == {name: [] for name in SECRETS}, log
    for secret in (token, bad_token, own.private, "forged"):
        assert secret not in log
    for session in (made, first, second):
        assert session["id"] in log
    lines = log.splitlines()
    assert sum("peers of no session removed" in line for line in lines) < STRANGERS
    if log_format == "json":
        events = [json.loads(line) for line in lines]
        assert all({"time", "level", "logger", "message"} <= event.keys() for event in events)
        opened = [event for event in events if event["message"] == "session opened"]
        ended = [(event["session"], event["reason"]) for event in events if event["message"] == "session ended"]
        assert [event["session"] for event in opened] == [made["id"], first["id"], second["id"]]
        assert {event["account"][:4] for event in opened} == {"acc_"}
        assert ended == [(first["id"], "replaced"), (second["id"], "closed")]
