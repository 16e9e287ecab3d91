"""Hosts that filter by the reverse path (rp_filter), as systemd sets it: clients' answers get in all the same."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB6
from tests.tunnel.test_read_only_sysctls import read_only

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.tunnel.client import Client
    from tests.support.tunnel.namespace import Namespace
    from tests.support.tunnel.world import World

LOOSE = ("net.ipv4.conf.default.rp_filter=2", "net.ipv4.conf.wan.rp_filter=2")
STRICT = "net.ipv4.conf.all.rp_filter=1"


def answered(client: Client) -> bool:
    return (client.get(f"{WEB}/ip", 2), client.get(f"{WEB6}/ip", 2)) == (EXIT_IP, EXIT_IP6)


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
    until(lambda: answered(clients[0]), "a client is answered")
    assert appliance.api("GET", "/readyz").status == 200

    world.exit.run("sysctl", "-qw", *(f"{name.split('=')[0]}=0" for name in (*LOOSE, STRICT)))
    marks = ("sysctl", "-n", "net.ipv4.conf.wan.src_valid_mark")
    until(lambda: world.exit.run(*marks).stdout == "0\n", "it is put back")
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


PUBLISHED = """
table ip published {
  chain in {
    type nat hook prerouting priority dstnat;
    ip daddr 10.101.0.1 tcp dport 53 dnat to 172.19.0.10:8000
  }
}
"""


def attach(world: World, link: str, there: str, address: str) -> Namespace:
    """Adds a link of the exit to the internet's host, which has `address` on it."""
    space = world.internet
    world.exit.run("ip", "link", "add", link, "type", "veth", "peer", "name", there, "netns", space.name)
    space.run("ip", "address", "add", address, "dev", there)
    space.run("ip", "link", "set", there, "up")
    return space


def test_networks_of_the_hosts_own_answer(
    world: World, once: str, client: Client, start_appliance: Callable[..., Appliance]
) -> None:
    """An allowed network beside the exit and a container that is published on the exit's address in the tunnel answer
    clients, where the host is no router and filters.
    """
    del once
    attach(world, "office", "desk0", "192.168.7.10/24")
    attach(world, "port0", "guest0", "172.19.0.10/24").run("ip", "route", "add", "10.101.0.0/24", "via", "172.19.0.1")
    world.exit.run("ip", "link", "add", "pods", "type", "bridge")
    world.exit.run("ip", "link", "set", "port0", "master", "pods")
    for link, address in (("office", "192.168.7.1/24"), ("pods", "172.19.0.1/24")):
        world.exit.run("ip", "address", "add", address, "dev", link)
        world.exit.run("ip", "link", "set", link, "up")
        world.exit.run("sysctl", "-qw", f"net.ipv4.conf.{link}.rp_filter=2")
    world.exit.run("ip", "link", "set", "port0", "up")
    world.exit.run("sysctl", "-qw", "net.ipv4.conf.pods.forwarding=1")
    world.exit.run("nft", "-f", "-", text_input=PUBLISHED)
    appliance = start_appliance(egress={"extra_allow": ["192.168.7.0/24"]})
    client.wg_quick(appliance.open(appliance.token())["wg_config"])
    for place in ("192.168.7.10:8000", "10.101.0.1:53"):
        until(partial(client.get, f"http://{place}/ip", 2), f"{place} answers")
    assert world.exit.run("sysctl", "-n", "net.ipv4.ip_forward").stdout == "0\n"
