"""An exit that is given another subnet and key while it has devices, and the files that are made anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from appliance.network.wireguard import keys
from tests.support.tunnel.sessions import client_key
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client


def test_another_subnet_and_key(start_appliance: Callable[..., Appliance], client: Client) -> None:
    """The interface stays, with the peer of the device; the file of `device rotate` carries, and is billed once."""
    appliance = start_appliance(wireguard={"keep_on_exit": True})
    client.wg_quick(appliance.admin("device", "add", "alice/phone"))
    assert client.address_seen() == EXIT_IP
    until(lambda: shown(appliance)["state"] == "connected", "it is connected")
    client.down()
    appliance.admin("node", "drain", "--now")
    used = shown(appliance)["bytes_in"]
    appliance.stop()
    appliance.configure(wireguard={"subnet": "10.77.0.0/24"})
    key = keys.generate_private_key()
    appliance.state.joinpath("server.key").write_text(keys.encode(key), encoding="ascii")
    assert "node renumber" in appliance.try_to_start()[1]
    (moved,) = json.loads(appliance.admin("node", "renumber", "--yes", "--json"))["devices"]
    assert moved["outdated"] == ["address", "server_key"]

    appliance.start()
    appliance.admin("node", "resume")
    assert shown(appliance)["bytes_in"] == used
    new = appliance.admin("device", "rotate", "alice/phone")
    client.wg_quick(new)
    assert client.address_seen() == EXIT_IP
    client.down()
    real = appliance.transfer(client_key(new))
    until(lambda: shown(appliance)["bytes_in"] == used + real.received, "what has moved is billed")


def shown(appliance: Appliance) -> dict[str, object]:
    found: dict[str, object] = json.loads(appliance.admin("device", "show", "alice/phone", "--json"))
    return found
