"""Clients that send nothing when their peers are lost: the exit puts the peers back and shakes hands by itself."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.devices import ANSWER
from tests.support.tunnel.sessions import client_key
from tests.support.tunnel.waiting import standing_still, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

pytestmark = pytest.mark.under_kernel


LOSSES = {
    "peer removed": "wg set {wg} peer {key} remove",
    "interface deleted": "ip link del {wg}",
    "wireguard-go killed": "kill -KILL {wireguard_go}",
}


class Quiet:
    """A client that was connected, and its peer on the exit."""

    def __init__(self, world: World, appliance: Appliance, client: Client) -> None:
        token = appliance.token()
        opened = appliance.open(token)
        config = opened["wg_config"]
        assert "PersistentKeepalive = 25\n" in config
        client.wg_quick(config.replace("PersistentKeepalive = 25\n", ""))
        client.address_seen()
        self.world, self.wg, self.key = world, appliance.interface, client_key(config)
        self.address = re.findall(r"^Address = ([0-9.]+)/32", config, re.MULTILINE)[0]
        until(lambda: "last_handshake_at" in appliance.session(opened["id"], token), "a look has shown the client")
        standing_still(lambda: self._sent_by(client))

    def shown(self, what: str) -> str:
        """What wg shows of the peer, empty where there is none."""
        shown = self.world.exit.run("wg", "show", self.wg, what, check=False).stdout
        return next((line.partition("\t")[2] for line in shown.splitlines() if line.startswith(self.key)), "")

    def handshake(self) -> int:
        return int(self.shown("latest-handshakes") or 0)

    def _sent_by(self, client: Client) -> int:
        return int(client.space.run("wg", "show", client.interface, "transfer").stdout.split()[2])


@pytest.mark.parametrize("loss", LOSSES)
def test_the_exit_begins_where_the_client_is_quiet(
    world: World, appliance: Appliance, client: Client, loss: str, show: Callable[[str], None]
) -> None:
    """The peer is back, the handshake is the exit's, the client has sent its answer and no more, what the exit sends is
    answered, and the keepalive that it took is off again."""
    if loss == "wireguard-go killed" and appliance.backend != "userspace":
        pytest.skip("the kernel's WireGuard has no process to kill")
    quiet = Quiet(world, appliance, client)
    command = LOSSES[loss].replace("{wg}", quiet.wg).replace("{key}", quiet.key)
    command = command.replace("{wireguard_go}", " ".join(map(str, world.exit.pids_of("wireguard-go"))))
    world.exit.run("sh", "-c", command)
    lost = time.monotonic()
    until(lambda: quiet.handshake() > 0, "a handshake with the client", every=0.05)
    show(f"shaken hands after {time.monotonic() - lost:.2f} s")
    received, sent = map(int, quiet.shown("transfer").split())
    # Answers alone: one, or more where the exit had to begin again.
    assert (received % ANSWER, sent > received > 0) == (0, True)
    until(lambda: quiet.shown("persistent-keepalive") == "off", "the keepalive is off", every=0.02)
    show(f"keepalive off after {time.monotonic() - lost:.2f} s")
    world.exit.run("ping", "-c", "1", "-W", "10", quiet.address)
