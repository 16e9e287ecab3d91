"""An interface of the configured name that somebody else made is left as it is, at every start and while we serve."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.appliance_process import PROJECT, Appliance
from tests.support.tunnel.client import new_key_pair
from tests.support.tunnel.foreign_interface import foreign_interface, snapshot
from tests.support.tunnel.ping import Ping
from tests.support.tunnel.waiting import until
from tests.support.tunnel.watched_exit import watched_exit
from tests.support.tunnel.world import EXIT_IP, WEB_IP
from tests.tunnel.test_host_cleanup import LEAVE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

WITH_KEY = "wg genkey | wg set {name} private-key /proc/self/fd/0"
PEER = "wg set {name} peer {key} allowed-ips 10.9.0.2/32 endpoint 198.51.100.99:51820"
ADDRESS = "ip address add 10.9.0.1/24 dev {name}"
PORT = "wg set {name} listen-port 4500"  # no port that a socket gets by itself
UP = "ip link set {name} up"

FOREIGN = {
    "an exit of its own": (WITH_KEY, PEER, ADDRESS, PORT, UP),
    "a key alone": (WITH_KEY,),
    "no key, a peer": (PEER,),
    "no key, an address": (ADDRESS,),
    "no key, up with an address": (ADDRESS, UP),
    "no key, a port": (PORT,),
}


@pytest.mark.black_box
def test_a_foreign_interface_is_refused_and_nothing_is_touched(world: World, backend: str, tmp_path: Path) -> None:
    """Whatever is set on it: one line that names it, exit status 1; interface, key, port, addresses, peers and routes
    stay, and no table, no sysctl and no process is there that was not before. When it has gone, the start succeeds."""
    appliance = Appliance(world, backend, tmp_path / "appliance", {})
    for case, commands in FOREIGN.items():
        with foreign_interface(world.exit, backend, appliance.interface, *commands):
            before = snapshot(world.exit, appliance.interface)
            status, said = appliance.try_to_start()
            assert snapshot(world.exit, appliance.interface) == before, case
            (line,) = [line for line in said.splitlines() if "error" in line]
            assert status == 1, case
            assert f"wireguard.interface {appliance.interface}: an interface of this name is there" in line
            assert "Traceback" not in said
    with appliance.serving():
        appliance.open(appliance.token())


@pytest.mark.black_box
def test_a_tun_without_wireguard_is_refused_and_nothing_is_touched(world: World, once: str, tmp_path: Path) -> None:
    """So is another VPN's TUN device of this name, which looks like wireguard-go's."""
    appliance = Appliance(world, once, tmp_path / "appliance", {})
    name = appliance.interface
    world.exit.run("ip", "tuntap", "add", "dev", name, "mode", "tun")
    before = snapshot(world.exit, name)
    status, said = appliance.try_to_start()
    assert (status, snapshot(world.exit, name)) == (1, before)
    assert f"{name}: an interface of this name" in said
    world.exit.run("ip", "link", "del", name)


@pytest.mark.black_box
def test_the_uplink_named_as_the_tunnel_is_refused(world: World, once: str, tmp_path: Path) -> None:
    """One line says that the name is another link's, not that the host has no default route, and nothing removes it."""
    uplink = world.exit.run("ip", "-o", "route", "show", "default").stdout.split("dev ")[1].split()[0]
    appliance = Appliance(world, once, tmp_path / "appliance", {"wireguard": {"interface": uplink}})
    before = snapshot(world.exit, uplink)
    status, said = appliance.try_to_start()
    assert (status, snapshot(world.exit, uplink)) == (1, before)
    (line,) = [line for line in said.splitlines() if "error" in line]
    assert f"wireguard.interface {uplink}: a link of this host has this name, and is no tunnel (it is veth)" in line
    assert "ip link del" not in line


@pytest.mark.black_box
@pytest.mark.parametrize("commands", [(), (UP,)], ids=["down", "up"])
def test_an_interface_with_nothing_on_it_is_taken(
    world: World, backend: str, tmp_path: Path, commands: tuple[str, ...]
) -> None:
    """It may be what a process of ours had made when it was killed."""
    appliance = Appliance(world, backend, tmp_path / "appliance", {})
    with foreign_interface(world.exit, backend, appliance.interface, *commands), appliance.serving():
        assert len(appliance.peers()) == 0
        appliance.open(appliance.token())
        assert len(appliance.peers()) == 1


def test_tunnels_are_taken_over_without_a_record(
    start_appliance: Callable[..., Appliance], client: Client, tmp_path: Path, show: Callable[[str], None]
) -> None:
    """An interface with server.key's key is ours whatever else is known, as after an upgrade from a version that
    keeps no record: sessions go on, no packet is lost."""
    appliance = start_appliance(wireguard={"keep_on_exit": True})
    opened = appliance.open(appliance.token())
    client.wg_quick(opened["wg_config"])
    assert client.address_seen() == EXIT_IP
    ping = Ping(client.space, WEB_IP, tmp_path / "ping")
    try:
        ping.goes_on(3)
        appliance.stop()
        _record(appliance).unlink()
        appliance.start()
        ping.goes_on(10)
        pinged = ping.stop()
    finally:
        ping.kill()
    show(f"lost {sum(pinged.outages)} of {pinged.sent}")
    assert pinged.outages == []
    assert [session["id"] for session in appliance.live_sessions()] == [opened["id"]]
    appliance.stop()
    appliance.configure(wireguard={"keep_on_exit": False})
    appliance.start()


def test_a_key_that_was_replaced_while_the_tunnel_stood(start_appliance: Callable[..., Appliance]) -> None:
    """server.key is replaced by hand while nothing serves and the tunnel stands: the interface is still ours, also
    where the process is killed before it has set the new key. Without the record it is another program's."""
    appliance = start_appliance(wireguard={"keep_on_exit": True})
    appliance.stop()
    old = _public_key(appliance)
    new = new_key_pair()
    (appliance.state / "server.key").write_text(new.private + "\n", encoding="ascii")
    record = _record(appliance).read_text(encoding="utf-8")
    _record(appliance).unlink()
    status, said = appliance.try_to_start()
    assert (status, f"its public key is {old}" in said, _public_key(appliance)) == (1, True, old)

    _record(appliance).write_text(record, encoding="utf-8")
    appliance.start()
    assert _public_key(appliance) == new.public
    appliance.stop()
    # As if it had been killed after it had adopted the new key, and before it had set it.
    recorded = json.loads(_record(appliance).read_text(encoding="utf-8"))["public_keys"]
    assert sorted(recorded) == sorted([old, new.public])
    appliance.configure(wireguard={"keep_on_exit": False})
    appliance.start()


def test_a_foreign_interface_that_comes_while_we_serve(backend: str, tmp_path: Path) -> None:
    """Somebody replaces the interface by one of that name and a key of their own: it is left as it is, /readyz and
    the log name it, once; when it has gone, ours is there again and the sessions go on."""
    with watched_exit(backend, tmp_path) as exit_, ExitStack() as stack:
        appliance, space = exit_.appliance, exit_.world.exit
        before, logged = exit_.facts(), len(appliance.log())
        with appliance.standing_still():
            exit_.sh("ip link del {wg}")
            _await_gone(appliance)
            stack.enter_context(foreign_interface(space, backend, appliance.interface, WITH_KEY, PEER, ADDRESS, UP))
        theirs = _device(appliance)

        def refused() -> bool:
            answer = appliance.api("GET", "/readyz")
            return answer.status == 503 and "that is not ours: its public key is" in str(answer.body)

        until(refused, "/readyz names it")
        assert "an interface" in appliance.attempt("doctor").stdout.split("that is not ours")[0]
        assert appliance.api("POST", "/v1/sessions", {"region": "test"}, appliance.token()).status == 503
        assert _device(appliance) == theirs
        stack.close()
        until(lambda: exit_.facts() == before, "ours is there again")
        until(lambda: appliance.api("GET", "/readyz").status == 200, "it is ready")
        exit_.members[0].client.shake_hands()
        assert exit_.members[0].client.address_seen() == EXIT_IP
        assert appliance.log()[logged:].count("that is not ours") == 1


def test_stopping_and_uninstalling_leave_a_foreign_interface(
    world: World, backend: str, tmp_path: Path, show: Callable[[str], None]
) -> None:
    """Neither the end of an exit that keeps nothing nor an uninstallation removes or changes it; all else of ours
    goes."""
    appliance = Appliance(world, backend, tmp_path / "appliance", {})
    with appliance.serving(), ExitStack() as stack:
        with appliance.standing_still():
            world.exit.run("ip", "link", "del", appliance.interface)
            _await_gone(appliance)
            stack.enter_context(foreign_interface(world.exit, backend, appliance.interface, WITH_KEY, PEER, ADDRESS))
        theirs = _device(appliance)
        appliance.configure(wireguard={"keep_on_exit": True})  # the test's own check of what is left
        appliance.stop()
        assert _device(appliance) == theirs
        assert "wg_appliance" not in world.exit.run("nft", "list", "tables").stdout
        command = (sys.executable, "-c", LEAVE, str(appliance.config))
        said = world.exit.run(*command, cwd=PROJECT).stdout
        show(said.strip())
        assert _device(appliance) == theirs
        stack.close()
        appliance.require_host_as_found()


def _record(appliance: Appliance) -> Path:
    return appliance.state / "interface.json"


def _public_key(appliance: Appliance) -> str:
    return appliance.space.run("wg", "show", appliance.interface, "public-key").stdout.strip()


def _device(appliance: Appliance) -> str:
    name = appliance.interface
    shown = f"wg showconf {name}; ip -oneline address show dev {name}; cat /sys/class/net/{name}/ifindex"
    return appliance.space.run("sh", "-c", shown).stdout


def _await_gone(appliance: Appliance) -> None:
    until(lambda: appliance.space.pids_of("wireguard-go") == [], "its wireguard-go has ended")
