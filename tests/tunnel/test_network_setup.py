"""The ground itself, under an exit made by hand: what fails here is the machine, not the appliance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.client import Received, new_key_pair
from tests.support.tunnel.handmade_exit import handmade_config, handmade_exit
from tests.support.tunnel.namespace import namespace_names
from tests.support.tunnel.webserver import blob_sha256
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB6, WEB_IP, new_world

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

FIVE_MB = 5_000_000


def test_a_handmade_exit_carries_traffic(world: World, backend: str, client: Client, tmp_path: Path) -> None:
    """Through wg-quick and a handmade exit 5 MB arrive intact, over both versions, from the exit's addresses."""
    keys = new_key_pair()
    with handmade_exit(world, backend, keys.public, tmp_path) as exit_keys:
        client.wg_quick(handmade_config(keys, exit_keys.public))
        assert client.address_seen(WEB) == EXIT_IP
        assert client.address_seen(WEB6) == EXIT_IP6
        assert client.download(FIVE_MB, "ground") == Received(FIVE_MB, blob_sha256(FIVE_MB, "ground"))


def test_the_internet_answers_nobody_without_translation(world: World, client: Client) -> None:
    """With forwarding alone a client's packets reach the internet, and no answer finds the way back."""
    world.exit.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    assert client.get(f"{WEB}/ip", seconds=3) == ""
    assert not client.ping(WEB_IP)


def test_wg_quick_fails_on_ipv6_where_it_is_disabled(client: Client) -> None:
    """The reason for `"ipv6": false`: wg-quick cannot bring a dual-stack config up on such a host."""
    client.disable_ipv6()
    with pytest.raises(AssertionError, match=r"-6 address add [^\n]*\n[^\n]*(disabled|denied)"):
        client.wg_quick(handmade_config(new_key_pair(), new_key_pair().public))


def test_the_counter_of_the_internet_sees_the_exit(world: World) -> None:
    """Packets from the exit move the counter that other tests expect to stand still."""
    before = world.packets_from_exit()
    world.exit.run("ping", "-c", "1", "-W", "5", WEB_IP)
    assert world.packets_from_exit() == before + 1


def test_a_world_leaves_nothing_behind(backend: str) -> None:  # noqa: ARG001 - asked for its check of root
    """When a test fails inside a world, its namespaces and the processes in them still go."""
    spaces, stays = [], []
    with pytest.raises(RuntimeError, match="a failing test"), new_world() as world:  # noqa: PT012 - the block is the test
        spaces = [world.exit, world.internet, *world.clients]
        stays = [world.exit.start("sleep", "1000")]
        message = "a failing test"
        raise RuntimeError(message)
    assert stays[0].wait(timeout=60) != 0
    assert [pid for space in spaces for pid in space.pids()] == []
    assert not {space.name for space in spaces} & set(namespace_names())
