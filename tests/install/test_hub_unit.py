"""A hub's nats-server on an installed host: there and asleep, until the appliance has written its configuration."""

from __future__ import annotations

import hashlib
import platform
from typing import TYPE_CHECKING

from appliance.domain.clock import HostClock
from appliance.fleet.certificates import make_authority, make_leaf
from appliance.fleet.hub_config import HubSettings, ServerFiles, render
from appliance.fleet.nats_program import TESTED
from appliance.fleet.nkey import NKey
from tests.support.install import sandbox
from tests.support.install.host_state import host_state, require_unchanged
from tests.support.install.installed import packages_to_purge
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.install.installed import Installed
    from tests.support.install.machine import Machine

HUB, CONFIG = "wg-appliance-hub.service", "var/lib/wg-appliance-hub/config"
PROGRAM = "usr/local/lib/wg-appliance/current/nats-server"
ALLOWED = {"execute its own program", "write /var/lib/wg-appliance-hub"}


def is_active(machine: Machine) -> bool:
    return machine.try_to_run("systemctl", "is-active", "--quiet", HUB).returncode == 0


def become_hub(machine: Machine) -> None:
    """Writes what `fleet init` writes, as the appliance's user, and asks for a restart as that does."""
    now = HostClock().now().wall_ms
    leaf = make_leaf(make_authority("flt_1", now), "a.hub.internal", now)
    files = ServerFiles(f"/{CONFIG}/leaf.pem", f"/{CONFIG}/leaf.key", "/var/lib/wg-appliance-hub/jetstream")
    settings = HubSettings("a.hub.internal", "0.0.0.0:7422", files, NKey.new().public, NKey.new().public, ())
    texts = {"leaf.pem": leaf.certificate, "leaf.key": leaf.key, "hub.conf": render(settings)}
    for name, text in texts.items():
        (machine.root / CONFIG / name).write_text(text, encoding="utf-8")
        machine.run("chown", "wg-appliance:wg-appliance-hub", f"/{CONFIG}/{name}")
        machine.run("chmod", "0640", f"/{CONFIG}/{name}")
    ask_restart(machine)


def ask_restart(machine: Machine) -> None:
    machine.run("setpriv", "--reuid=wg-appliance", "--clear-groups", "cp", "/dev/null", f"/{CONFIG}/restart")


def test_a_host_becomes_a_hub(appliance: Installed, program: Path) -> None:
    """systemd starts it; it is confined; a restart of the appliance does not touch it; purged, nothing is left."""
    machine = appliance.machine
    before = host_state(machine)
    appliance.install(appliance.bring(program))
    assert not is_active(machine)
    bundled = (machine.root / PROGRAM.replace("current", appliance.version())).read_bytes()
    assert hashlib.sha256(bundled).hexdigest() == TESTED[platform.machine()]

    become_hub(machine)
    until(lambda: is_active(machine), "nats-server runs")
    until(lambda: "7422" in machine.run("ss", "-ltn").stdout, "nats-server listens")
    status = sandbox.status(machine, HUB)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    pid = status["Pid"]
    machine.run("systemctl", "restart", "wg-appliance")
    appliance.ready()
    assert sandbox.status(machine, HUB)["Pid"] == pid
    ask_restart(machine)
    until(lambda: is_active(machine) and sandbox.status(machine, HUB)["Pid"] != pid, "it was started anew")
    machine.run("systemctl", "stop", HUB)
    assert not is_active(machine), "an operator may stop it"
    machine.run("systemctl", "start", HUB)
    machine.run("mv", f"/{CONFIG}/hub.conf", f"/{CONFIG}/aside")
    ask_restart(machine)
    until(lambda: not is_active(machine), "it is stopped where there is no configuration")
    machine.run("mv", f"/{CONFIG}/aside", f"/{CONFIG}/hub.conf")
    found = sandbox.findings(machine, HUB)
    assert {name for name, succeeded in found.items() if succeeded} == ALLOWED
    said = appliance.command("uninstall", "--purge")
    machine.run(*packages_to_purge(said), "--yes", "--autoremove")
    require_unchanged(machine, before)
