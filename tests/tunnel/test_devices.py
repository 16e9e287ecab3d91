"""A device: one file, scanned once, that is good however long its client is away."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from pyzbar.pyzbar import ZBarSymbol, decode

from tests.support.client.photographed import photographed
from tests.support.tunnel.sessions import client_key
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client

REJECT_AFTER = {"WG_APPLIANCE_TEST_REJECT_AFTER": "3"}


@pytest.mark.under_kernel
def test_a_code_that_is_scanned_once(start_appliance: Callable[..., Appliance], client: Client) -> None:
    """The code's file carries traffic; after a time away past the idle timeout it does again, in a second session.

    The device's totals are those of both, and what the exit's own counters say. Removed, it has no peer.
    """
    appliance = start_appliance(environment=REJECT_AFTER, **{"tiers.free": {"idle_timeout": "1s"}})
    drawn = appliance.admin("device", "add", "alice/phone", "--qr")
    (code,) = decode(photographed(drawn, light_on_dark=True), symbols=[ZBarSymbol.QRCODE])
    config, resolvers = re.subn(r"DNS = 9\.9\.9\.9, 2620:fe::fe\n", "", code.data.decode())
    assert resolvers == 1  # nothing here could set them
    key = client_key(config)
    assert appliance.peers() == {key}
    assert state(appliance) == "idle"

    for used in (1, 2):
        client.wg_quick(config)
        assert client.address_seen() == EXIT_IP
        client.down()
        until(lambda used=used: reasons(appliance) == used * ["idle"], "its session was opened and has ended as idle")
        assert state(appliance) == "idle"

    shown, real, both = device(appliance), appliance.transfer(key), sessions(appliance)
    assert (shown["bytes_in"], shown["bytes_out"]) == (real.received, real.sent)
    assert (shown["bytes_in"], shown["bytes_out"]) == (
        sum(each["bytes_in"] for each in both),
        sum(each["bytes_out"] for each in both),
    )
    assert shown["last_handshake_at"] == both[0]["last_handshake_at"]
    appliance.admin("device", "remove", "alice/phone")
    assert appliance.peers() == set()


def test_another_key_while_it_is_connected(appliance: Appliance, client: Client) -> None:
    """When `device rotate` is done, the old file is dead and its session over; the new one is of the same address."""
    old = appliance.admin("device", "add", "alice/phone")
    address = device(appliance)["address"]
    client.wg_quick(old)
    assert client.address_seen() == EXIT_IP
    until(lambda: state(appliance) == "connected", "it is connected")
    new = appliance.admin("device", "rotate", "alice/phone")
    assert appliance.peers() == {client_key(new)}
    assert device(appliance)["address"] == address
    client.down()
    client.wg_quick(new)
    assert client.address_seen() == EXIT_IP
    until(lambda: state(appliance) == "connected", "it is connected with its new key")
    assert reasons(appliance) == [None, "rotated"]
    client.down()


def test_paused_and_resumed(appliance: Appliance, client: Client) -> None:
    """While it is paused it has no peer; resumed, the same file carries."""
    config = appliance.admin("device", "add", "alice/phone")
    appliance.admin("device", "pause", "alice/phone")
    assert appliance.peers() == set()
    appliance.admin("device", "resume", "alice/phone")
    client.wg_quick(config)
    assert client.address_seen() == EXIT_IP
    client.down()
    appliance.admin("account", "delete", "alice", "--yes")
    assert appliance.peers() == set()


def device(appliance: Appliance) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(appliance.admin("device", "show", "alice/phone", "--json"))
    return shown


def state(appliance: Appliance) -> str:
    return str(device(appliance)["state"])


def reasons(appliance: Appliance) -> list[str | None]:
    """Why its sessions have ended, newest first."""
    return [each["terminated_reason"] for each in sessions(appliance)]


def sessions(appliance: Appliance) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(appliance.admin("session", "list", "--json"))["sessions"]
    return listed
