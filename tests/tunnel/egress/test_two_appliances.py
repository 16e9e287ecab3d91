"""Two appliances on one host, each with an interface, ports, subnets and a state directory of its own."""

from __future__ import annotations

import shutil
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support import netns
from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.client import clients_of
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB6, WEB_PORT, World, new_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.tunnel.client import Client

BLOCKED = "203.0.113.77"
TRIES = 100
SECOND = {
    "wireguard": {"listen_port": 51821, "subnet": "10.102.0.0/24", "subnet6": "fd65:7869:7401::/112"},
    "api": {"listen": "127.0.0.1:8082"},
    "metrics": {"listen": "127.0.0.1:9587"},
}
# A host whose own firewall forwards nothing, so that both appliances add rules to it.
SITE = """
table inet site {
  chain forward { type filter hook forward priority filter; policy drop; }
}
"""


@pytest.fixture
def ground(backend: str) -> Iterator[World]:  # noqa: ARG001 - asked for its check of root
    with new_world() as world:
        world.internet.run("ip", "address", "add", f"{BLOCKED}/32", "dev", "net0")
        world.exit.run("nft", "-f", "-", text_input=SITE)
        yield world


def two_on(world: World, backend: str, folder: Path) -> tuple[Appliance, Appliance]:
    egress = {"egress": {"extra_block": [f"{BLOCKED}/32"]}}
    first = Appliance(world, backend, folder / "first", egress)
    return first, Appliance(world, backend, folder / "second", egress | SECOND, role="y")


@pytest.mark.black_box
def test_two_serve_side_by_side(ground: World, backend: str, tmp_path: Path, show: Callable[[str], None]) -> None:
    """Each has a table of its own, which nobody rewrites; clients of both reach the internet and no blocked host. When
    one leaves and restores the host, the other's rules, table and clients stay; after both, the host is as it was."""
    first, second = two_on(ground, backend, tmp_path)
    with clients_of(ground, tmp_path) as (one, other), first.serving(), second.serving():
        until(lambda: first.api("GET", "/readyz").status == 200, "the first one is still ready")
        one.wg_quick(first.open(first.token())["wg_config"])
        other.wg_quick(second.open(second.token())["wg_config"])
        assert (one.address_seen(), other.address_seen()) == (EXIT_IP, EXIT_IP)
        assert (one.address_seen(WEB6), other.address_seen(WEB6)) == (EXIT_IP6, EXIT_IP6)
        tables = _tables(ground)
        passed = _passed(one) + _passed(other)
        show(f"{passed} of {2 * TRIES} connections to a blocked host passed")
        assert passed == 0
        # A table that is made anew has another handle.
        assert _tables(ground) == tables
        assert len(tables) == 3

        second.configure(wireguard={"keep_on_exit": True})  # of this test's check alone: it has read the file before
        second.stop()
        assert second.interface not in ground.exit.run("nft", "list", "ruleset").stdout
        until(lambda: one.get(f"{WEB}/ip", 2) == EXIT_IP, "the first one's client reaches the internet")
        assert _passed(one) == 0
        second.configure(wireguard={"keep_on_exit": False})
        second.start()
        first.configure(wireguard={"keep_on_exit": True})
        first.stop()
        until(lambda: other.get(f"{WEB}/ip", 2) == EXIT_IP, "the second one's does")
        second.stop()
        assert "wg-appliance" not in ground.exit.run("nft", "list", "ruleset").stdout
        first.require_host_as_found()


def test_names_of_tables(ground: World, backend: str, tmp_path: Path) -> None:
    """The first one has the table of the known name, which it keeps; the second one's is named after its interface,
    also after both were stopped and the second one starts first."""
    first, second = two_on(ground, backend, tmp_path)
    names = {"inet wg_appliance", f"inet wg_appliance_{second.interface}"}
    with first.serving(), second.serving():
        assert _appliances_tables(ground) == names
        for each in (first, second):
            each.configure(wireguard={"keep_on_exit": True})
            each.stop()
        second.start()
        assert _appliances_tables(ground) == {f"inet wg_appliance_{second.interface}"}
        first.configure(wireguard={"keep_on_exit": False})
        first.start()
        assert _appliances_tables(ground) == names
        # One without a record knows its table by what it says, as after an upgrade.
        second.stop()
        (second.state / "nftables.json").unlink()
        second.configure(wireguard={"keep_on_exit": False})
        second.start()
        assert _appliances_tables(ground) == names
        second.configure(wireguard={"keep_on_exit": True})  # of the check alone, as above
        second.stop()


def test_another_appliance_that_takes_the_table_while_we_serve(ground: World, once: str, tmp_path: Path) -> None:
    """A version that knows one name alone rewrites our table as its own: the log names it, and ours moves to another
    name; blocked hosts stay blocked from then on, and clients reach the internet."""
    first, _ = two_on(ground, once, tmp_path)
    with clients_of(ground, tmp_path) as (client, _), first.serving():
        client.wg_quick(first.open(first.token())["wg_config"])
        assert client.address_seen() == EXIT_IP
        theirs = ground.exit.run("nft", "list", "table", "inet", "wg_appliance").stdout
        for ours, other in ((first.interface, "wgb0"), ("10.101.0.", "10.102.0."), (":7400::", ":7401::")):
            theirs = theirs.replace(ours, other)
        rewrite = f"table inet wg_appliance {{}}\ndelete table inet wg_appliance\n{theirs}"
        own = f"inet wg_appliance_{first.interface}"

        def moved() -> bool:
            if "wgb0" not in ground.exit.run("nft", "list", "table", "inet", "wg_appliance", check=False).stdout:
                ground.exit.run("nft", "-f", "-", text_input=rewrite)
            return own in _appliances_tables(ground)

        until(moved, "it has another name", every=0.05)
        assert client.address_seen() == EXIT_IP
        assert _passed(client) == 0
        assert f"nftables table inet wg_appliance is another appliance's: {own} is used from now on" in first.log()
        ground.exit.run("nft", "delete", "table", "inet", "wg_appliance")


def _tables(world: World) -> list[str]:
    return world.exit.run("nft", "--handle", "list", "tables").stdout.splitlines()


def _appliances_tables(world: World) -> set[str]:
    names = (line.removeprefix("table ") for line in world.exit.run("nft", "list", "tables").stdout.splitlines())
    return {name for name in names if name.startswith("inet wg_appliance")}


def _passed(client: Client) -> int:
    """How many of so many connections to the blocked host are answered within a second."""
    with netns.Namespace(client.space.name).entered(), ExitStack() as stack:
        tries = [stack.enter_context(socket.socket()) for _ in range(TRIES)]
        for each in tries:
            each.setblocking(False)
            each.connect_ex((BLOCKED, WEB_PORT))
        time.sleep(1)
        return sum(_is_connected(each) for each in tries)


def _is_connected(each: socket.socket) -> bool:
    try:
        each.getpeername()
    except OSError:
        return False
    return True


def test_one_begun_with_a_copy_of_the_others_records_takes_nothing(ground: World, backend: str, tmp_path: Path) -> None:
    """It has a table of its own from the start, and the first one's is not changed; nor is its interface taken over by
    one that has that name in its configuration too."""
    first, second = two_on(ground, backend, tmp_path)
    with clients_of(ground, tmp_path) as (one, _), first.serving():
        one.wg_quick(first.open(first.token())["wg_config"])
        assert one.address_seen() == EXIT_IP
        shutil.copytree(first.state, second.state, ignore=shutil.ignore_patterns("store.*", "*.key", "*.lock"))
        before = _tables(ground)
        with second.serving():
            assert _appliances_tables(ground) == {"inet wg_appliance", f"inet wg_appliance_{second.interface}"}
            assert set(before) <= set(_tables(ground))
            second.configure(wireguard={"keep_on_exit": True})  # of the check alone, as above
            second.stop()
        second.configure(wireguard={"interface": first.interface})
        second.start_and_fail()
        assert "not that of server.key" in second.log()
        assert one.address_seen() == EXIT_IP
