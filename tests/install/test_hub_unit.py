"""Two hosts made by `install` become a fleet. The hub's nats-server is a unit: there and asleep until `fleet init`."""

from __future__ import annotations

import hashlib
import platform
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from appliance.fleet.hub.nats_program import TESTED
from tests.support.fleet.patience import closed, opened
from tests.support.fleet.world import new_fleet_world
from tests.support.install import debian, sandbox
from tests.support.install.host_state import host_state, require_unchanged
from tests.support.install.installed import Installed, first_token, packages_to_purge
from tests.support.install.machine import Machine
from tests.support.tunnel.client import Client, clients_of
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import WEB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fleet.world import ExitSpace

HUB, CONFIG = "wg-appliance-hub.service", "var/lib/wg-appliance-hub/config"
STREAMS = "var/lib/wg-appliance-hub/jetstream"
PROGRAM = "usr/local/lib/wg-appliance/current/nats-server"
ALLOWED = {"execute its own program", "write /var/lib/wg-appliance-hub"}
REGIONS = ("fsn", "ams")


@dataclass
class Host:
    """An exit that `install` has made, with an account `owner` of its own. `before`: how the host was before."""

    space: ExitSpace
    appliance: Installed
    before: set[str]
    token: str

    @property
    def machine(self) -> Machine:
        return self.appliance.machine


@dataclass
class Ground:
    """Two hosts, of which the first will be the hub; and clients without tunnels."""

    hosts: list[Host]
    clients: list[Client]


@pytest.fixture(scope="module")
def ground(backend: str, program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    del backend  # asked for its check of root
    folder = tmp_path_factory.mktemp("fleet")

    def install(machine: Machine, region: str, space: ExitSpace) -> Host:
        machine.boot()
        before = host_state(machine)
        appliance = Installed(machine, region)
        token = first_token(appliance.install(appliance.bring(program), "--region", region))
        return Host(space, appliance, before, token)

    with ExitStack() as stack:
        world = stack.enter_context(new_fleet_world(exits=2, clients=2))
        clients = stack.enter_context(clients_of(world, folder))
        machines = []
        for space in world.hosts:
            machines.append(Machine(space, folder / f"machine{space.number}", debian.MACHINE))
            (machines[-1].root / "etc/hostname").write_text(f"host{space.number}\n", encoding="ascii")
            stack.callback(machines[-1].kill)
        with ThreadPoolExecutor(len(machines)) as threads:
            hosts = list(threads.map(install, machines, REGIONS, world.hosts))
        yield Ground(hosts, clients)


def is_active(machine: Machine) -> bool:
    return machine.try_to_run("systemctl", "is-active", "--quiet", HUB).returncode == 0


def main_pid(machine: Machine) -> str:
    """ "0" while it does not run."""
    return machine.run("systemctl", "show", "--value", "--property=MainPID", HUB).stdout.strip()


def ask_restart(machine: Machine) -> None:
    machine.run("setpriv", "--reuid=wg-appliance", "--clear-groups", "cp", "/dev/null", f"/{CONFIG}/restart")


def streams(machine: Machine) -> set[str]:
    return {name for name in machine.run("ls", f"/{STREAMS}").stdout.split() if name.startswith("flt_")}


def await_both(host: Host) -> None:
    """Returns when it names the regions of both."""

    def named() -> set[str]:
        answer = host.appliance.api("GET", "/v1/regions")
        assert answer.status == 200, answer
        return {each["code"] for each in answer.body["regions"]}

    until(lambda: named() == set(REGIONS), f"the regions of both are named in {host.appliance.region}", every=0.5)


def test_two_commands_make_a_fleet_of_two_installed_hosts(ground: Ground) -> None:
    """The second is what the first has printed. The joining host's own owner is dropped, and named; the hub's
    nats-server is run by its unit alone."""
    hub, spoke = hosts = ground.hosts
    assert not is_active(hub.machine)
    bundled = (hub.machine.root / PROGRAM.replace("current", hub.appliance.version())).read_bytes()
    assert hashlib.sha256(bundled).hexdigest() == TESTED[platform.machine()]

    printed = hub.appliance.command("fleet", "init")
    joined = spoke.machine.run(*printed.split())
    dropped = "accounts dropped here with their tokens, as host1 has those of the same name: owner"
    assert dropped in joined.stderr.splitlines()
    for host in hosts:
        await_both(host)
    assert is_active(hub.machine)
    assert [len(host.machine.space.pids_of("nats-server")) for host in hosts] == [1, 0]
    assert not is_active(spoke.machine)
    for host in hosts:
        said = host.appliance.command("doctor", "--json")
        assert said.count('"failed"') == 0, said


def test_one_token_opens_in_either_region_through_either_api(ground: Ground) -> None:
    """The hub's owner's; that of the owner who was dropped opens nowhere. Traffic leaves from the address of the
    region's exit; DELETE through the other API cuts."""
    hub, spoke = ground.hosts
    token = hub.token
    for host in ground.hosts:
        assert host.appliance.api("GET", "/v1/usage", token=spoke.token).status == 401

    for exit_, other, client in zip((hub, spoke), (spoke, hub), ground.clients, strict=True):
        session = opened(other.appliance, token, exit_.appliance.region)
        client.wg_quick(session["wg_config"])
        assert client.address_seen() == session["public_ip"] == exit_.space.ip
        here = opened(exit_.appliance, token, exit_.appliance.region)
        assert here["public_ip"] == exit_.space.ip
        for each in (session, here):
            closed(other.appliance, each["id"], token)
        assert client.get(f"{WEB}/ip", seconds=2) == ""
        client.down()


def test_the_unit_of_a_hub(ground: Ground) -> None:
    """It is confined; a restart of the appliance does not touch it; it is stopped where there is no configuration;
    purged, nothing is left."""
    hub = ground.hosts[0]
    machine = hub.machine
    status = sandbox.status(machine, HUB)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    pid = status["Pid"]
    machine.run("systemctl", "restart", "wg-appliance")
    hub.appliance.ready()
    await_both(hub)
    assert main_pid(machine) == pid
    used = streams(machine)
    as_hub = "setpriv", "--reuid=wg-appliance-hub", "--regid=wg-appliance-hub", "--clear-groups"
    machine.run(*as_hub, "mkdir", "-p", f"/{STREAMS}/flt_1-5-alone/jetstream")
    ask_restart(machine)
    until(lambda: main_pid(machine) not in (pid, "0"), "it was started anew")
    assert streams(machine) == used, "those of hubs that are no more are removed, and those in use are not"
    await_both(hub)

    machine.run("systemctl", "stop", HUB)
    assert not is_active(machine), "an operator may stop it"
    machine.run("systemctl", "start", HUB)
    machine.run("mv", f"/{CONFIG}/hub.conf", f"/{CONFIG}/aside")
    ask_restart(machine)
    until(lambda: not is_active(machine), "it is stopped where there is no configuration")
    assert streams(machine) == used
    machine.run("mv", f"/{CONFIG}/aside", f"/{CONFIG}/hub.conf")
    found = sandbox.findings(machine, HUB)
    assert {name for name, succeeded in found.items() if succeeded} == ALLOWED
    said = hub.appliance.command("uninstall", "--purge")
    machine.run(*packages_to_purge(said), "--yes", "--autoremove")
    require_unchanged(machine, hub.before)
