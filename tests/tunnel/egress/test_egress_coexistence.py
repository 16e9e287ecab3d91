"""Next to other firewalls: before the appliance, while it serves, and after it."""

from __future__ import annotations

import re
import subprocess
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.client import CURL, Client, clients_of
from tests.support.tunnel.foreign_rules import RULES, load_rules
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB6, World, new_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# As /etc/nftables.conf of a host that forwards nothing and is reached by ssh alone.
NFTABLES = """
table inet site {
  chain input {
    type filter hook input priority filter; policy drop;
    iif "lo" accept
    ct state vmap { established : accept, related : accept, invalid : drop }
    meta l4proto { icmp, ipv6-icmp } accept
    tcp dport 22 accept
  }
  chain forward { type filter hook forward priority filter; policy drop; }
}
"""
# Docker's, for both IP versions, with a container whose port is published.
DOCKER = ("docker.iptables", "docker-ipv6.ip6tables", "docker-nat.iptables")
UFW = ("ufw.iptables", "ufw.ip6tables")
FIREWALLS = {
    "docker": DOCKER,
    "ufw": UFW,
    "docker and ufw": (*UFW, *DOCKER),
    "firewalld": ("firewalld.nft",),
    "nftables": (),
}


class Host:
    """The exit of a world, with another firewall on it once that is loaded."""

    def __init__(self, world: World, backend: str, folder: Path, firewall: str) -> None:
        self.world = world
        self.firewall = firewall
        self._appliance = lambda: Appliance(world, backend, folder / "appliance", {})
        self.interface = world.interface("x")

    @cached_property
    def appliance(self) -> Appliance:
        """With the host as it is when it is first asked for."""
        return self._appliance()

    def load(self) -> None:
        for name in FIREWALLS[self.firewall]:
            load_rules(self.world.exit, RULES / name, self.interface)
        if self.firewall == "nftables":
            self.world.exit.run("nft", "-f", "-", text_input=NFTABLES)

    def rules(self) -> str:
        """All of others', without counters. What iptables shows of its own has to be readable to it."""
        shown = [self.world.exit.run("nft", "--stateless", "list", "ruleset").stdout]
        shown += [self.world.exit.run(f"{program}-nft", "-S").stdout for program in ("iptables", "ip6tables")]
        return "\n".join(shown)

    def forwards_for_others(self) -> bool:
        """Whether a host beside the tunnel is forwarded, as its firewall forbids."""
        neighbour = self.world.clients[1]
        return neighbour.run(*CURL, "--max-time", "1", f"{WEB}/ip", check=False).returncode == 0


@pytest.fixture
def world(once: str) -> Iterator[World]:  # noqa: ARG001 - asked for its check of root
    with new_world() as made:
        made.exit.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        made.internet.run("ip", "route", "add", "198.51.100.0/24", "via", EXIT_IP)
        yield made


@pytest.fixture
def client(world: World, tmp_path: Path) -> Iterator[Client]:
    with clients_of(world, tmp_path) as made:
        yield made[0]


def works(client: Client) -> bool:
    return (client.get(f"{WEB}/ip", 5), client.get(f"{WEB6}/ip", 5)) == (EXIT_IP, EXIT_IP6)


@pytest.mark.parametrize("firewall", ["docker", "ufw", "firewalld", "nftables"])
def test_clients_get_through_a_firewall_that_was_there_first(
    world: World, client: Client, once: str, tmp_path: Path, firewall: str
) -> None:
    """On a host whose firewall drops what it does not know, clients dial in and reach the internet, and nobody else
    does; also after the firewall was started anew. When the appliance has gone, its rules are as they were."""
    host = Host(world, once, tmp_path, firewall)
    assert host.forwards_for_others()
    host.load()
    assert not host.forwards_for_others()
    before = host.rules()
    with host.appliance.serving() as appliance:
        client.wg_quick(appliance.open(appliance.token())["wg_config"])
        until(lambda: works(client), "clients reach the internet")
        assert not host.forwards_for_others()

        world.exit.run("nft", "flush", "ruleset")
        host.load()
        until(lambda: works(client), "clients reach the internet again")
        assert not host.forwards_for_others()
    assert host.rules() == before


def test_a_firewall_that_comes_later_cuts_no_client_off_for_long(
    world: World, client: Client, once: str, tmp_path: Path
) -> None:
    """Two firewalls that start on a host with clients cut nobody off for long."""
    host = Host(world, once, tmp_path, "docker and ufw")
    with host.appliance.serving() as appliance:
        client.wg_quick(appliance.open(appliance.token())["wg_config"])
        assert client.address_seen() == EXIT_IP
        host.load()
        until(lambda: not host.forwards_for_others(), "the firewall works")
        until(lambda: works(client), "clients reach the internet")
        appliance.keep_tables_of_others()
    after = host.rules()
    host.world.exit.run("nft", "flush", "ruleset")
    host.load()
    assert host.rules() == after


OPEN = """
table inet site {
  set bad { type ipv4_addr; elements = { 192.0.2.66 } }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ip daddr @bad drop
    iifname "lan2" oifname "wan" ip daddr 192.0.2.99 drop
  }
}
table ip other {
  chain forward { type filter hook forward priority filter + 5; policy drop; iifname != "none" accept; }
}
"""


def test_nothing_is_done_where_nothing_is_in_the_way(world: World, client: Client, once: str, tmp_path: Path) -> None:
    """Rules of an operator that let clients through, with exceptions, stay as they are, and so do the exceptions."""
    world.exit.run("nft", "-f", "-", text_input=OPEN)

    def tables() -> list[str]:
        names = (("inet", "site"), ("ip", "other"))
        return [world.exit.run("nft", "--stateless", "list", "table", *name).stdout for name in names]

    before = tables()
    with Host(world, once, tmp_path, "nftables").appliance.serving() as appliance:
        client.wg_quick(appliance.open(appliance.token())["wg_config"])
        until(lambda: works(client), "clients reach the internet")
        assert tables() == before


MARKS = """
table inet marks {
  chain pre { type filter hook prerouting priority mangle; meta mark set 0x99; }
  chain through { type filter hook forward priority mangle; meta mark set 0x99; }
  chain out { type route hook output priority mangle; meta mark set 0x99; }
  chain post { type filter hook postrouting priority mangle; meta mark set ct mark; }
}
"""


def test_whole_marks_of_others_cut_no_client_off(world: World, client: Client, once: str, tmp_path: Path) -> None:
    """Another program that sets the whole mark of each packet in all hooks, as for shaping, leaves clients their way
    out and back, and the host its way to them."""
    world.exit.run("nft", "-f", "-", text_input=MARKS)
    with Host(world, once, tmp_path, "nftables").appliance.serving() as appliance:
        config = appliance.open(appliance.token())["wg_config"]
        client.wg_quick(config)
        until(lambda: works(client), "clients reach the internet")
        for address in re.findall(r"([0-9a-f.:]+)/(?:32|128)", config):
            assert world.exit.run("ping", "-c", "1", "-W", "2", address, check=False).returncode == 0, address


OWNED = """
add table inet owned { flags owner; }
add chain inet owned forward { type filter hook forward priority filter; policy drop; }
"""


def test_a_table_that_its_owner_alone_may_change(world: World, client: Client, once: str, tmp_path: Path) -> None:
    """The log says that it may drop clients' packets; the exit is ready all the same, other tables are passed, and
    once the owner has gone clients reach the internet."""
    host = Host(world, once, tmp_path, "docker")
    host.load()
    with host.appliance.serving() as appliance:
        owner = subprocess.Popen(world.exit.prefix("nft", "-i"), stdin=subprocess.PIPE, text=True)
        try:
            assert owner.stdin is not None
            owner.stdin.write(OWNED)
            owner.stdin.flush()
            until(lambda: "chain inet owned forward may drop clients' packets" in appliance.log(), "it is said")
            assert appliance.api("GET", "/readyz").status == 200
            client.wg_quick(appliance.open(appliance.token())["wg_config"])
            until(lambda: client.ping("10.101.0.1"), "the tunnel works")
            assert client.get(f"{WEB}/ip", 2) == ""
        finally:
            owner.communicate(timeout=60)
        until(lambda: works(client), "clients reach the internet")
