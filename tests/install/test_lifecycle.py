"""The life of an installed appliance, on a Debian with systemd: what its operator does, and what a client notices."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.install.host_state import host_state, require_unchanged
from tests.support.install.installed import BACKUPS, SERVICE, first_token, owners, packages_to_purge, refused
from tests.support.install.programs import NEWER
from tests.support.tunnel.ping import Ping
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.install.installed import Installed
    from tests.support.tunnel.client import Client

# An initiation (148 bytes) that came before the peer was back is nobody's: WireGuard counts none of an unknown key.
_UNHEARD = ((0, 0), (148, 0))


def test_a_life(
    appliance: Installed,
    client: Client,
    program: Path,
    newer_program: Path,
    broken_program: Path,
    tmp_path: Path,
    show: Callable[[str], None],
) -> None:
    """Installed, used, rebooted, upgraded under traffic, saved from a broken upgrade: one session all the way.

    Uninstalled, the host is as it was before.
    """
    machine = appliance.machine
    before = host_state(machine)

    token = first_token(appliance.install(appliance.bring(program)))
    session = appliance.open(token)
    client.wg_quick(session["wg_config"])
    assert client.address_seen() == EXIT_IP

    machine.reboot()
    appliance.ready()
    assert client.address_seen() == EXIT_IP

    ping = Ping(client.space, "10.101.0.1", tmp_path / "ping")
    ping.goes_on(20)
    machine.run(appliance.bring(newer_program), "upgrade", seconds=300)
    ping.goes_on(20)
    pinged = ping.stop()
    assert appliance.version() == NEWER
    assert pinged.outages == []
    show(f"upgraded under traffic: {pinged.sent} packets, none lost")

    ping = Ping(client.space, "10.101.0.1", tmp_path / "ping-2")
    failed = machine.try_to_run(appliance.bring(broken_program), "upgrade", seconds=300)
    assert f"{NEWER} runs again" in refused(failed)
    assert "store.sqlite: restored" in failed.stdout
    ping.goes_on(20)
    assert ping.stop().outages == []
    assert appliance.version() == NEWER
    assert NEWER in (machine.root / "usr/local/share/man/man1/wg-appliance.1").read_text(encoding="ascii")
    appliance.ready()
    assert [live["id"] for live in appliance.live_sessions()] == [session["id"]]
    assert client.address_seen() == EXIT_IP

    client.down()
    assert appliance.close(session["id"], token)["bytes_in"] > 0
    said = appliance.command("uninstall", "--purge")
    machine.run(*packages_to_purge(said), "--yes", "--autoremove")
    require_unchanged(machine, before)


def test_a_device_over_an_upgrade(
    appliance: Installed, client: Client, program: Path, newer_program: Path, tmp_path: Path
) -> None:
    """Its file carries before, during and after; all that its client has counted is its sessions'."""
    machine, brought = appliance.machine, appliance.bring(program)
    appliance.count_often()
    appliance.install(brought)
    appliance.command("device", "add", "alice/phone", "--file", "/root/phone.conf")
    client.wg_quick((machine.root / "root/phone.conf").read_text(encoding="utf-8"))
    assert client.address_seen() == EXIT_IP

    ping = Ping(client.space, "10.101.0.1", tmp_path / "ping")
    ping.goes_on(20)
    machine.run(appliance.bring(newer_program), "upgrade", seconds=300)
    ping.goes_on(20)
    assert ping.stop().outages == []
    assert appliance.version() == NEWER
    (session,) = appliance.live_sessions()
    assert (session["device_name"], session["account"]) == ("phone", "alice"), session

    until(lambda: _bytes(appliance) == _counted(client), "the device has what its client has counted")
    first = _counted(client)
    client.down()
    appliance.command("session", "terminate", session["id"])
    client.wg_quick((machine.root / "root/phone.conf").read_text(encoding="utf-8"))
    assert client.address_seen() == EXIT_IP
    until(lambda: len(appliance.live_sessions()) == 1, "the next session is there")
    both = json.loads(appliance.command("session", "list", "--json"))["sessions"]
    assert len(both) == 2
    until(lambda: _missing(appliance, first, client) in _UNHEARD, "the device has what both sessions have")


def _bytes(appliance: Installed) -> tuple[int, int]:
    """What came in from the device's client, and what went out to it."""
    shown = json.loads(appliance.command("device", "show", "alice/phone", "--json"))
    return shown["bytes_in"], shown["bytes_out"]


def _counted(client: Client) -> tuple[int, int]:
    """What the client itself has sent and received."""
    _, received, sent = client.space.run("wg", "show", client.interface, "transfer").stdout.split()
    return int(sent), int(received)


def _missing(appliance: Installed, before: tuple[int, int], client: Client) -> tuple[int, int]:
    """What the device lacks of what its client has counted, `before` and since."""
    counted, has = _counted(client), _bytes(appliance)
    return before[0] + counted[0] - has[0], before[1] + counted[1] - has[1]


def test_coming_back(appliance: Installed, client: Client, program: Path) -> None:
    """Uninstalled, it leaves what another install goes on with; purged, a daily backup brings the session back.

    That has the server key in it, and is root's once the service's user is gone.
    """
    machine, brought = appliance.machine, appliance.bring(program)
    appliance.count_often()
    session = appliance.open(first_token(appliance.install(brought)))
    client.wg_quick(session["wg_config"])
    assert client.address_seen() == EXIT_IP

    appliance.command("uninstall")
    assert "token" not in appliance.install(brought)
    assert client.address_seen() == EXIT_IP

    machine.run("systemctl", "start", "wg-appliance-backup")
    assert f"/{BACKUPS} is kept" in appliance.command("uninstall", "--purge")
    assert owners(machine, BACKUPS) == {"root 700 d", "root 600 f"}
    assert not (machine.root / "var/lib/wg-appliance").exists()
    appliance.install(brought)
    machine.run("systemctl", "stop", SERVICE)
    (backup,) = (machine.root / BACKUPS).iterdir()
    appliance.command("restore", f"/{BACKUPS}/{backup.name}")
    machine.run("systemctl", "start", SERVICE)
    appliance.ready()
    assert [live["id"] for live in appliance.live_sessions()] == [session["id"]]
    assert client.address_seen() == EXIT_IP
