"""Hosts that filter by the reverse path (rp_filter), as systemd sets it: clients' answers get in all the same."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB6
from tests.tunnel.test_read_only_sysctls import read_only

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

LOOSE = ("net.ipv4.conf.default.rp_filter=2", "net.ipv4.conf.wan.rp_filter=2")
STRICT = "net.ipv4.conf.all.rp_filter=1"
SECONDS = 5.0  # it is to take one


def answered(client: Client) -> bool:
    return (client.get(f"{WEB}/ip", 2), client.get(f"{WEB6}/ip", 2)) == (EXIT_IP, EXIT_IP6)


@pytest.mark.under_kernel
def test_clients_are_answered(world: World, clients: list[Client], start_appliance: Callable[..., Appliance]) -> None:
    """With the filter on from the start, and made strict while serving; between clients too, where they may. What was
    set for it is put back when it is not needed any more, and at the stop.
    """
    world.exit.run("sysctl", "-qw", *LOOSE)
    appliance = start_appliance(egress={"isolate_clients": False})
    token = appliance.token()
    for client in clients:
        client.wg_quick(appliance.open(token)["wg_config"])
        until(partial(answered, client), "a client is answered")
    assert clients[0].ping("10.101.0.3")

    world.exit.run("sysctl", "-qw", STRICT)
    until(lambda: answered(clients[0]), "a client is answered", SECONDS)
    assert appliance.api("GET", "/readyz").status == 200

    world.exit.run("sysctl", "-qw", *(f"{name.split('=')[0]}=0" for name in (*LOOSE, STRICT)))
    marks = ("sysctl", "-n", "net.ipv4.conf.wan.src_valid_mark")
    until(lambda: world.exit.run(*marks).stdout == "0\n", "it is put back", SECONDS)
    assert answered(clients[0])
    world.exit.run("sysctl", "-qw", *LOOSE)


def test_what_it_takes_is_named_where_it_cannot_be_set(world: World, once: str, client: Client, tmp_path: Path) -> None:
    """In a container that filters, the one sysctl that it takes is named at the start; with it the exit serves."""
    world.exit.run("sysctl", "-qw", *LOOSE, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    appliance = Appliance(world, once, tmp_path / "appliance", {}, through=read_only(""))
    appliance.start_and_fail()
    (line,) = [line for line in appliance.log().splitlines() if "cannot set" in line]
    assert "cannot set net.ipv4.conf.wan.src_valid_mark = 1: Read-only" in line
    assert line.endswith("set net.ipv4.conf.all.src_valid_mark=1")

    world.exit.run("sysctl", "-qw", "net.ipv4.conf.all.src_valid_mark=1")
    beside = Appliance(world, once, tmp_path / "beside", {}, through=read_only(""))
    with beside.serving():
        client.wg_quick(beside.open(beside.token())["wg_config"])
        until(lambda: answered(client), "a client is answered")
