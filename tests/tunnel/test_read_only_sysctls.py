"""The appliance where it may not set sysctls, as in a container: it serves if the machine around it has set them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB6

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

ON = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
INSTEAD = "set net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"


def read_only(*places: str) -> tuple[str, ...]:
    """The command that runs another with these places below /proc/sys read-only, for itself alone."""
    steps = [f"mount --bind /proc/sys/{place} /proc/sys/{place}" for place in places]
    steps += [f"mount -o remount,bind,ro /proc/sys/{place}" for place in places]
    return ("unshare", "--mount", "sh", "-ec", "; ".join([*steps, 'exec "$@"']), "sh")


def exit_in_container(world: World, backend: str, folder: Path, *places: str) -> Appliance:
    return Appliance(world, backend, folder / "appliance", {}, through=read_only(*places))


def refused(world: World, appliance: Appliance) -> str:
    """It ends before it has made anything; the line that it ends with."""
    appliance.start_and_fail()
    assert world.exit.run("nft", "list", "tables").stdout == ""
    assert world.exit.run("ip", "link", "show", "dev", appliance.interface, check=False).returncode != 0
    assert not (appliance.state / "sysctls.json").exists()
    appliance.require_host_as_found()
    (line,) = [line for line in appliance.log().splitlines() if "cannot set" in line]
    return line


@pytest.mark.black_box
def test_it_serves_where_forwarding_is_on(world: World, backend: str, client: Client, tmp_path: Path) -> None:
    """What clients do not need is warned of, once each; their traffic passes, in both IP versions."""
    world.exit.run("sysctl", "-qw", *ON, "net.ipv4.conf.all.send_redirects=1")
    with exit_in_container(world, backend, tmp_path, "").serving() as appliance:
        client.wg_quick(appliance.open(appliance.token())["wg_config"])
        assert (client.address_seen(), client.address_seen(WEB6)) == (EXIT_IP, EXIT_IP6)
        interfaces = {"default", *world.exit.links_with_ipv6()} - {appliance.interface}
        warned = [line for line in appliance.log().splitlines() if " WARNING " in line and " stays " in line]
        assert sorted(line.split("sysctl ")[1].split(" stays")[0] for line in warned) == sorted(
            {"net.ipv4.conf.all.send_redirects", *(f"net.ipv6.conf.{name}.accept_ra" for name in interfaces)}
        )
        assert " ERROR " not in appliance.log()


@pytest.mark.black_box
def test_all_that_has_to_be_set_around_it_is_named_at_once(world: World, backend: str, tmp_path: Path) -> None:
    """Where forwarding is off it ends with one line that names all it needs, before it has made anything."""
    line = refused(world, exit_in_container(world, backend, tmp_path, ""))
    for name in ("ipv4.conf.wan", "ipv4.conf.default", "ipv6.conf.all"):
        assert f"net.{name}.forwarding = 1" in line
    assert line.endswith(INSTEAD)
    assert "send_redirects" not in line
    assert "accept_ra" not in line


@pytest.mark.parametrize(
    ("place", "on", "named"),
    [
        pytest.param("net/ipv6", (), "net.ipv6.conf.all.forwarding = 1: Read-only file system", id="IPv6 alone"),
        pytest.param(
            "net/ipv4",
            ("net.ipv4.conf.wan.forwarding=1",),
            "cannot set net.ipv4.conf.default.forwarding = 1: Read-only file system",
            id="IPv4, and the uplink is on",
        ),
    ],
)
def test_only_what_cannot_be_set_is_named(
    world: World, once: str, tmp_path: Path, place: str, on: tuple[str, ...], named: str
) -> None:
    """What can be set there, or is set already, is not named."""
    if on:
        world.exit.run("sysctl", "-qw", *on)
    assert named in refused(world, exit_in_container(world, once, tmp_path, place))
