"""The host's default route moves to another uplink while clients are connected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.ping import Ping
from tests.support.tunnel.world import EXIT_IP, new_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

_ROUTER = """
ip link add up0 type veth peer name eth0 netns {client}
ip address add 198.51.100.17/28 dev up0
ip link set up0 up
ip link add net1 type veth peer name wan2 netns {exit}
ip address add 192.0.2.10/24 dev net1
ip link set net1 up
sysctl -qw net.ipv4.ip_forward=1
"""
_CLIENT = "ip address add 198.51.100.18/28 dev eth0; ip link set eth0 up; ip route add default via 198.51.100.17"
_EXIT = "ip link set wan2 addrgenmode none; ip address add 192.0.2.1/24 dev wan2; ip link set wan2 up"


@pytest.fixture
def world(backend: str) -> Iterator[World]:  # noqa: ARG001 - asked for its check of root
    """The client reaches the exit through the internet, which two uplinks of the exit lead to."""
    with new_world(1) as made:
        made.exit.run("ip", "link", "del", "lan1")
        made.internet.run("sh", "-ec", _ROUTER.format(client=made.clients[0].name, exit=made.exit.name))
        made.clients[0].run("sh", "-ec", _CLIENT)
        made.exit.run("sh", "-ec", _EXIT)
        yield made


@pytest.mark.black_box
def test_clients_are_answered_by_the_new_uplink(
    world: World,
    start_appliance: Callable[..., Appliance],
    client: Client,
    tmp_path: Path,
    show: Callable[[str], None],
) -> None:
    """What comes in by the old uplink, by which no route leads out any more, is answered by the new one."""
    appliance = start_appliance(node={"public_ip": EXIT_IP})
    client.wg_quick(appliance.open(appliance.token())["wg_config"])
    ping = Ping(client.space, "10.101.0.1", tmp_path / "ping")
    try:
        ping.goes_on(5)
        # As other programs leave one behind, in a table that no rule leads to.
        world.exit.run("ip", "route", "add", "default", "via", "203.0.113.10", "dev", "wan", "table", "100")
        world.exit.run("ip", "route", "replace", "default", "via", "192.0.2.10", "dev", "wan2")
        ping.goes_on(20)
        show(f"lost {ping.stop().outages}")
        world.exit.run("ip", "route", "replace", "default", "via", "203.0.113.10", "dev", "wan")
        client.ping("10.101.0.1")
        world.exit.run("ip", "route", "flush", "table", "100")
    finally:
        ping.kill()
