"""How sessions and the appliance end: at once, with exact last figures, and with nothing left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.client import new_key_pair
from tests.support.tunnel.sessions import client_key, figures
from tests.support.tunnel.waiting import standing_still, until
from tests.support.tunnel.world import EXIT_IP, WEB, WEB6, WEB_IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

FIFTY_MB = 50_000_000
# A WireGuard keepalive, the one packet an exit may send by itself: https://www.wireguard.com/protocol/
KEEPALIVE_BYTES = 32


def test_after_delete_not_one_packet_passes(world: World, appliance: Appliance, client: Client) -> None:
    """When DELETE has answered, the peer is gone from the tunnel and the internet hears nothing more of the client."""
    token = appliance.token()
    session = appliance.open(token)
    client.wg_quick(session["wg_config"])
    assert client.address_seen(WEB) == EXIT_IP
    assert client.ping(WEB_IP)

    before = standing_still(world.packets_from_exit)
    assert appliance.close(session["id"], token)["terminated_reason"] == "closed"
    assert appliance.peers() == set()
    assert not client.ping(WEB_IP)
    assert client.get(f"{WEB}/ip", seconds=3) == ""
    assert client.get(f"{WEB6}/ip", seconds=3) == ""
    assert world.packets_from_exit() == before


def test_delete_cuts_a_running_download(world: World, appliance: Appliance, client: Client) -> None:
    """A download that runs when its session is deleted stops there, however much the server still sends."""
    token = appliance.token()
    session = appliance.open(token)
    client.wg_quick(session["wg_config"])
    client.address_seen()
    download = client.start_download(FIFTY_MB, "cut", slow_until="cut")
    until(lambda: download.received() > 200_000, "the download runs")

    appliance.close(session["id"], token)
    assert appliance.peers() == set()
    world.open_gate("cut")
    received = standing_still(download.received)
    assert not client.ping(WEB_IP)
    assert download.received() == received < FIFTY_MB


def test_the_last_figures_are_exact(start_appliance: Callable[..., Appliance], client: Client) -> None:
    """DELETE reads the tunnel itself: its figures are the tunnel's last ones, though no tick was due."""
    appliance = start_appliance(meter={"interval": "1h"})
    token, keys = appliance.token(), new_key_pair()
    session = appliance.open(token, client_public_key=keys.public)
    client.wg_quick(session["wg_config"], private_key=keys.private)
    client.address_seen()
    client.download(1_000_000, "last")
    client.down()

    real = appliance.transfer(keys.public)
    final = appliance.close(session["id"], token)
    assert figures(final).received == real.received
    assert figures(final).sent - real.sent in {0, KEEPALIVE_BYTES}

    again = appliance.close(session["id"], token)
    assert figures(again) == figures(final)
    assert again["terminated_at"] == final["terminated_at"]


def test_an_address_is_free_after_delete(start_appliance: Callable[..., Appliance], client: Client) -> None:
    """In a subnet for one client the second is told `subnet exhausted`; after DELETE the next one gets through."""
    appliance = start_appliance(wireguard={"subnet": "10.101.0.0/30"})
    token = appliance.token()
    first = appliance.open(token)
    refused = appliance.api("POST", "/v1/sessions", {"region": "test"}, token)
    assert (refused.status, refused.body["error"]) == (503, "subnet exhausted")
    assert int(refused.headers["retry-after"]) > 0
    appliance.close(first["id"], token)

    second = appliance.open(token)
    client.wg_quick(second["wg_config"])
    assert client.address_seen() == EXIT_IP
    assert appliance.peers() == {client_key(second["wg_config"])}


@pytest.mark.parametrize("forwarding", [pytest.param("0", marks=pytest.mark.under_kernel), "1"])
def test_stopping_leaves_the_host_as_it_was(
    world: World, start_appliance: Callable[..., Appliance], client: Client, forwarding: str
) -> None:
    """With `keep_on_exit = false` SIGTERM ends tunnel, firewall table and forwarding that the appliance had set up."""
    world.exit.run("sysctl", "-qw", f"net.ipv4.ip_forward={forwarding}", f"net.ipv6.conf.all.forwarding={forwarding}")
    appliance = start_appliance()
    client.wg_quick(appliance.open(appliance.token())["wg_config"])
    assert client.address_seen() == EXIT_IP
    assert world.exit.run("nft", "list", "tables").stdout != ""

    appliance.stop()
    assert world.exit.run("nft", "list", "tables").stdout == ""
    assert world.exit.run("ip", "link", "show", "dev", appliance.interface, check=False).returncode != 0
    assert world.exit.run("sysctl", "-n", "net.ipv4.ip_forward").stdout.strip() == forwarding
    assert world.exit.run("sysctl", "-n", "net.ipv6.conf.all.forwarding").stdout.strip() == forwarding


def test_stopping_restores_what_the_kernel_changed(world: World, start_appliance: Callable[..., Appliance]) -> None:
    """The kernel turns off the whole host's ICMP redirects when a WireGuard interface comes up: they are on again.

    wg_open() in drivers/net/wireguard/device.c writes `net.ipv4.conf.all.send_redirects`; nothing there puts it back.
    """
    setting = "net.ipv4.conf.all.send_redirects"
    world.exit.run("sysctl", "-qw", f"{setting}=1")
    start_appliance().stop()
    assert world.exit.run("sysctl", "-n", setting).stdout.strip() == "1"
