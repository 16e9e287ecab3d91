"""Traffic through the appliance: it arrives intact, from the exit's address, and every byte is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.client import Received, new_key_pair
from tests.support.tunnel.sessions import client_key, figures, settled_figures
from tests.support.tunnel.webserver import blob, blob_sha256
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB6

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client

MB = 1_000_000


@pytest.mark.under_kernel
@pytest.mark.parametrize(
    ("down", "up"), [(10 * MB, 2 * MB), pytest.param(50 * MB, 10 * MB, marks=pytest.mark.long)], ids=["short", "long"]
)
def test_what_is_carried_is_intact_and_counted(
    appliance: Appliance, client: Client, tmp_path: Path, down: int, up: int
) -> None:
    """What goes down and up arrives intact; afterwards the session's bytes are exactly the tunnel's own."""
    token = appliance.token()
    session = appliance.open(token)
    key = client_key(session["wg_config"])
    content = tmp_path / "upload"
    with content.open("wb") as file:
        file.writelines(blob(up, "up"))

    client.wg_quick(session["wg_config"])
    assert client.address_seen() == session["public_ip"] == EXIT_IP
    assert client.download(down, "down") == Received(down, blob_sha256(down, "down"))
    assert client.upload(content) == Received(up, blob_sha256(up, "up"))
    client.down()

    counted = settled_figures(appliance, session["id"], token, key)
    assert counted.sent > down
    assert counted.received > up


def test_the_servers_key_pair_is_a_pair(appliance: Appliance) -> None:
    """A config with a key made by the server names the public key that goes with it, and the exit has that peer."""
    config = appliance.open(appliance.token())["wg_config"]
    key = client_key(config)
    assert f"# PublicKey = {key}\n" in config
    assert appliance.peers() == {key}


def test_a_client_may_bring_its_own_key(appliance: Appliance, client: Client) -> None:
    """A client that brings its key gets a config without one; with its own put in, traffic flows and counts."""
    token, keys = appliance.token(), new_key_pair()
    session = appliance.open(token, client_public_key=keys.public)
    assert "PrivateKey" not in session["wg_config"]
    client.wg_quick(session["wg_config"], private_key=keys.private)
    assert client.address_seen() == EXIT_IP
    client.down()
    assert settled_figures(appliance, session["id"], token, keys.public).sent > 0
    assert "last_handshake_at" in appliance.session(session["id"], token)


def test_the_same_key_again_replaces_its_session(appliance: Appliance, client: Client) -> None:
    """A client that lost the answer asks again with its key: the new config works, the old session is over."""
    token, keys = appliance.token(), new_key_pair()
    first = appliance.open(token, client_public_key=keys.public)
    second = appliance.open(token, client_public_key=keys.public)
    client.wg_quick(second["wg_config"], private_key=keys.private)
    assert client.address_seen() == EXIT_IP
    assert appliance.session(first["id"], token)["terminated_reason"] == "replaced"
    assert appliance.peers() == {keys.public}


def test_ipv6_left_out_for_a_client_without_it(appliance: Appliance, client: Client) -> None:
    """With `"ipv6": false` the config holds no IPv6, and wg-quick brings it up on a host whose IPv6 is disabled."""
    client.disable_ipv6()
    session = appliance.open(appliance.token(), ipv6=False)
    assert "::" not in session["wg_config"]
    client.wg_quick(session["wg_config"])
    assert client.address_seen() == EXIT_IP


@pytest.mark.parametrize("size", [MB, pytest.param(10 * MB, marks=pytest.mark.long)])
def test_ipv6_is_reached_and_counted_too(appliance: Appliance, client: Client, size: int) -> None:
    """With IPv6 in the tunnel the IPv6 internet is reached as well, from the exit's IPv6 address, and counted."""
    token = appliance.token()
    session = appliance.open(token)
    client.wg_quick(session["wg_config"])
    assert client.address_seen(WEB6) == EXIT_IP6
    assert client.address_seen(WEB) == EXIT_IP
    assert client.download(size, "six", web=WEB6) == Received(size, blob_sha256(size, "six"))
    client.down()
    assert settled_figures(appliance, session["id"], token, client_key(session["wg_config"])).sent > size


def test_without_subnet6_nothing_goes_over_ipv6(start_appliance: Callable[..., Appliance], client: Client) -> None:
    """With `subnet6 = ""` the client has an IPv4 address alone; IPv4 works, and nothing goes out over IPv6."""
    appliance = start_appliance(wireguard={"subnet6": ""})
    config = appliance.open(appliance.token())["wg_config"]
    (address,) = [line for line in config.splitlines() if line.startswith("Address")]
    assert ":" not in address
    client.wg_quick(config)
    assert client.address_seen() == EXIT_IP
    assert client.get(f"{WEB6}/ip", seconds=3) == ""


@pytest.mark.parametrize("sizes", [(15 * MB, 5 * MB), pytest.param((30 * MB, 10 * MB), marks=pytest.mark.long)])
def test_two_clients_at_once_are_billed_their_own_bytes(
    appliance: Appliance, clients: list[Client], sizes: tuple[int, int]
) -> None:
    """Two accounts download at the same time: both intact, each session billed its own bytes and no others."""
    tokens = [appliance.token("alice"), appliance.token("bob")]
    sessions = [appliance.open(token) for token in tokens]
    for client, session in zip(clients, sessions, strict=True):
        client.wg_quick(session["wg_config"])
        assert client.address_seen() == EXIT_IP

    downloads = [client.start_download(size, "both") for client, size in zip(clients, sizes, strict=True)]
    assert [download.finish() for download in downloads] == [Received(n, blob_sha256(n, "both")) for n in sizes]

    for client in clients:
        client.down()
    for session, token, size in zip(sessions, tokens, sizes, strict=True):
        counted = settled_figures(appliance, session["id"], token, client_key(session["wg_config"]))
        # Headers and retransmissions come on top, but for the smaller never as much as the larger's share.
        assert size < counted.sent < size * 2


def test_usage_adds_up_over_sessions(appliance: Appliance, client: Client) -> None:
    """The account's bytes are exactly those of its sessions together, both directions, ended ones included."""
    token, total = appliance.token(), 0
    for _ in range(2):
        keys = new_key_pair()
        session = appliance.open(token, client_public_key=keys.public)
        client.wg_quick(session["wg_config"], private_key=keys.private)
        assert client.address_seen() == EXIT_IP
        client.down()
        final = figures(appliance.close(session["id"], token))
        total += final.received + final.sent
    usage = appliance.api("GET", "/v1/usage", token=token)
    assert usage.status == 200, usage
    assert usage.body["bytes_used"] == total > 0
