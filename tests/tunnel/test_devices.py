"""A device: one file, scanned once, that is good however long its client is away."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from pyzbar.pyzbar import ZBarSymbol, decode

from tests.support.client.photographed import photographed
from tests.support.tunnel.appliance_process import PROGRAM_VARIABLE
from tests.support.tunnel.devices import DeviceInUse
from tests.support.tunnel.newer_version import newer_version
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client

# What a client needs after its handshake must be over by then, on a busy machine and an emulated kernel too: what comes
# later is the next session's.
REJECT_AFTER_S = {"userspace": 5, "kernel": 9}
CONNECTED_S = 3
# Bytes of what goes to a client that was sent nothing for ten seconds: if it is gone by then, after its session's end.
KEEPALIVE = 32


@pytest.mark.under_kernel
def test_a_code_that_is_scanned_once(
    start_appliance: Callable[..., Appliance],
    client: Client,
    backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    show: Callable[[str], None],
) -> None:
    """The code's file carries, and does again after times away past the idle timeout, whatever the server went through:
    killed under it, upgraded, restarted, its interface lost. Each time it is another session, with a line on the
    invoice.

    Their bytes are what the exit's own counters say, to the byte, but for keepalives to a client that is gone. Removed,
    the device has no peer.
    """
    environment = {"WG_APPLIANCE_TEST_REJECT_AFTER": str(REJECT_AFTER_S[backend])}
    appliance = start_appliance(environment=environment, **{"tiers.paid": {"idle_timeout": "1s"}})
    appliance.admin("account", "create", "alice", "--tier", "paid")
    phone = DeviceInUse(appliance, client, scanned(appliance.admin("device", "add", "alice/phone", "--qr")))
    took = [phone.begins()]
    phone.sleeps(sessions=1)
    newer = newer_version(tmp_path / "newer")  # before its session begins, which is short
    took.append(phone.begins())
    killed_while_it_carries(phone, lambda: monkeypatch.setenv(PROGRAM_VARIABLE, str(newer)))
    phone.sleeps(sessions=2)
    phone.without_interface(lambda: (appliance.stop(), appliance.start()))
    took.append(phone.begins())
    phone.sleeps(sessions=3)
    phone.without_interface(lambda: appliance.space.run("ip", "link", "del", appliance.interface))
    until(lambda: appliance.peers() == {phone.key}, "the interface is made anew")
    took.append(phone.begins())
    phone.sleeps(sessions=4)
    show("answered through the tunnel, seconds after wg-quick up: " + ", ".join(f"{s:.2f}" for s in took))

    shown, sessions = phone.shown(), phone.sessions()
    assert shown["state"] == "idle"
    received, sent = phone.moved()
    assert shown["bytes_in"] == received
    # Of the times after which the interface was lost, and the last one: no session has these any more.
    assert sent - shown["bytes_out"] in range(0, 4 * KEEPALIVE, KEEPALIVE)
    lines = invoiced(appliance, sessions[0]["terminated_at"][:7])
    for figure in ("bytes_in", "bytes_out", "seconds"):
        assert {s["id"]: s[figure] for s in sessions} == {line["id"]: line[figure] for line in lines}
    for figure in ("bytes_in", "bytes_out"):
        assert shown[figure] == sum(s[figure] for s in sessions)
    assert shown["last_handshake_at"] == sessions[0]["last_handshake_at"]
    appliance.admin("device", "remove", "alice/phone")
    assert appliance.peers() == set()


def scanned(drawn: str) -> str:
    """The file in the code, without its resolvers: nothing here could set them."""
    (code,) = decode(photographed(drawn, light_on_dark=True), symbols=[ZBarSymbol.QRCODE])
    config, resolvers = re.subn(r"DNS = 9\.9\.9\.9, 2620:fe::fe\n", "", code.data.decode())
    assert resolvers == 1
    return config


def killed_while_it_carries(phone: DeviceInUse, upgrade: Callable[[], None]) -> None:
    """kill -9, and a newer version that begins long after the session's time is over. The tunnel carries all along, and
    what is counted of the time is proven: what the handshake allows."""
    before, connected, allowed_s = phone.handshake(), phone.connected(), REJECT_AFTER_S[phone.appliance.backend]
    killed = time.monotonic()
    phone.appliance.kill()
    until(lambda: time.monotonic() >= killed + 2 * allowed_s, "nothing is proven any more", every=0.5)
    assert phone.client.address_seen() == EXIT_IP
    upgrade()
    phone.appliance.start()
    assert phone.client.address_seen() == EXIT_IP
    assert phone.handshake() == before
    with closing(sqlite3.connect(phone.appliance.store)) as store:
        assert store.execute("SELECT count(*) FROM added").fetchall() == [(0,)]
    until(lambda: "terminated_at" in phone.appliance.session(connected["id"], phone.token), "its session is over")
    assert phone.appliance.session(connected["id"], phone.token)["seconds"] <= allowed_s


def invoiced(appliance: Appliance, month: str) -> list[dict[str, Any]]:
    books = json.loads(appliance.admin("invoice", "alice", "--month", month, "--format", "json", "--verify"))
    lines: list[dict[str, Any]] = books["lines"]
    return lines


def test_another_key_while_it_is_connected(appliance: Appliance, client: Client) -> None:
    """When `device rotate` is done, the old file is dead and its session over; the new one is of the same address."""
    old = DeviceInUse(appliance, client, appliance.admin("device", "add", "alice/phone"))
    address = old.shown()["address"]
    old.begins()
    old.connected()
    new = DeviceInUse(appliance, client, appliance.admin("device", "rotate", "alice/phone"))
    assert appliance.peers() == {new.key} != {old.key}
    assert new.shown()["address"] == address
    client.down()
    new.begins()
    new.connected()
    assert [session.get("terminated_reason") for session in new.sessions()] == [None, "rotated"]
    client.down()


def test_paused_and_resumed(appliance: Appliance, client: Client) -> None:
    """While it is paused it has no peer, and nothing is counted; resumed, the same file carries. Closed by DELETE, its
    session has the time since the handshake, and the next one begins with another handshake."""
    phone = DeviceInUse(appliance, client, appliance.admin("device", "add", "alice/phone"))
    appliance.admin("device", "pause", "alice/phone")
    assert appliance.peers() == set()
    appliance.admin("device", "resume", "alice/phone")
    assert (phone.shown()["seconds"], phone.sessions()) == (0, [])
    asked = time.monotonic()
    phone.begins()
    session, seen = phone.connected(), time.monotonic()
    until(lambda: time.monotonic() >= seen + CONNECTED_S, "it has been connected for a while")
    least = int(time.monotonic() - seen)
    closed = phone.ends(session["id"])
    assert least <= closed["seconds"] <= time.monotonic() - asked
    assert closed["terminated_reason"] == "closed"
    until(lambda: appliance.peers() == {phone.key}, "its peer is back")
    client.shake_hands()
    assert client.address_seen() == EXIT_IP
    assert phone.connected()["id"] != session["id"]
    client.down()
    appliance.admin("account", "delete", "alice", "--yes")
    assert appliance.peers() == set()
