"""What is worked out of a ruleset is what the kernel does with it: real packets, through real rules.

In the place of the tunnel is a client's link: a client's packets come in there, and leave by the uplink.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from appliance.network.firewall.simulator import Obstacle, Packet, obstacles
from appliance.ops.doctor import firewall
from appliance.ops.doctor.facts import Firewall
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.client import CURL
from tests.support.tunnel.foreign_rules import RULES, UPLINK, load_rules
from tests.support.tunnel.world import EXIT_IP, WEB, WEB6, WEB_IP, WEB_IP6, WEB_PORT, World, new_world

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT_LINK = "lan1"
CLIENT, CLIENT6 = "198.51.100.18", "2001:db8:1:1::2"
PORT = 51820
PATIENCE_S = 60

ECHO = f"""
import socket
echo = socket.socket(type=socket.SOCK_DGRAM)
echo.bind(("", {PORT}))
print(flush=True)
while True:
    data, sender = echo.recvfrom(100)
    echo.sendto(data, sender)
"""
ASK = """
import socket, sys, time
ask = socket.socket(type=socket.SOCK_DGRAM)
ask.settimeout(0.5)
ask.connect((sys.argv[1], int(sys.argv[2])))
deadline = time.monotonic() + float(sys.argv[3])
while time.monotonic() < deadline:
    try:
        ask.send(b"?")
        ask.recv(100)
        sys.exit(0)
    except OSError:
        time.sleep(0.1)
sys.exit(1)
"""

CAPTURED = {
    "docker": ("docker.iptables",),
    "ufw": ("ufw.iptables", "ufw.ip6tables"),
    "ufw mended": ("ufw-mended.iptables", "ufw-mended.ip6tables"),
    "firewalld": ("firewalld.nft",),
    "firewalld mended": ("firewalld-mended.nft",),
}
HANDMADE = sorted(file.name for file in (RULES / "handmade").iterdir())


@pytest.fixture(scope="module")
def ground() -> Iterator[World]:
    """A client whose packets the exit forwards untranslated, with a way back; an echo on the exit's UDP port."""
    if backend_here() is None:
        pytest.skip(NO_ROOT)
    with new_world(1) as world:
        world.exit.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        world.internet.run("ip", "route", "add", "198.51.100.0/24", "via", EXIT_IP)
        world.internet.run("ip", "route", "add", "2001:db8:1::/48", "via", "2001:db8:2::1")
        echo = world.exit.start(sys.executable, "-c", ECHO, stdout=subprocess.PIPE)
        assert echo.stdout is not None
        echo.stdout.readline()
        try:
            yield world
        finally:
            echo.kill()
            echo.wait(timeout=60)
            echo.stdout.close()


@pytest.fixture
def flushed(ground: World) -> Iterator[World]:
    try:
        yield ground
    finally:
        ground.exit.run("nft", "flush", "ruleset")


@pytest.mark.parametrize("name", CAPTURED)
def test_rules_of_other_programs(flushed: World, name: str) -> None:
    """Docker's, ufw's and firewalld's, as they write them: each verdict is certain, and the kernel's."""
    for rules in CAPTURED[name]:
        load_rules(flushed.exit, RULES / rules, CLIENT_LINK)
    agree(flushed)


@pytest.mark.parametrize("name", HANDMADE)
def test_rules_made_by_hand(flushed: World, name: str) -> None:
    """Every kind of test and verdict that is understood."""
    load_rules(flushed.exit, RULES / "handmade" / name, CLIENT_LINK)
    agree(flushed)


def agree(world: World) -> None:
    """Asked all at once: each that is dropped takes its time."""
    filters = read(world)
    expected = [
        not surely_dropped(filters, "forward", forwarded(CLIENT, WEB_IP)),
        not surely_dropped(filters, "forward", forwarded(CLIENT6, WEB_IP6)),
        not surely_dropped(filters, "input", [to_the_host()]),
    ]
    with ThreadPoolExecutor() as pool:
        asked = [
            pool.submit(fetches, world, WEB, expected=expected[0]),
            pool.submit(fetches, world, WEB6, expected=expected[1]),
            pool.submit(answers, world, expected=expected[2]),
        ]
    assert [each.result() for each in asked] == expected


def read(world: World) -> Firewall:
    """As the doctor does, with iptables' own listing wherever it has rules."""
    ruleset = world.exit.run("nft", "-j", "list", "ruleset").stdout
    saved = {
        family: world.exit.run(f"{program}-nft-save", "-t", "filter").stdout
        for family, program in firewall.PROGRAMS.items()
        if f'"family": "{family}", "table": "filter", "name": "FORWARD"' in ruleset
    }
    return Firewall(ruleset, None, saved, {})


def surely_dropped(filters: Firewall, hook: str, packets: list[Packet]) -> bool:
    found: list[Obstacle] = [o for packet in packets for o in obstacles(firewall.tables(filters), hook, packet)]
    assert all(obstacle.surely for obstacle in found), found
    return found != []


def forwarded(client: str, web: str) -> list[Packet]:
    there, back = (ip_address(client), ip_address(web)), (ip_address(web), ip_address(client))
    return [
        Packet(CLIENT_LINK, UPLINK, *there, "tcp", 40000, WEB_PORT, "new"),
        Packet(CLIENT_LINK, UPLINK, *there, "tcp", 40000, WEB_PORT, "established"),
        Packet(UPLINK, CLIENT_LINK, *back, "tcp", WEB_PORT, 40000, "established"),
    ]


def to_the_host() -> Packet:
    return Packet(UPLINK, None, ip_address(WEB_IP), ip_address(EXIT_IP), "udp", 40000, PORT, "new")


def fetches(world: World, url: str, *, expected: bool) -> bool:
    """Long enough where an answer is expected, and for a moment where none is."""
    seconds = str(PATIENCE_S if expected else 1)
    return world.clients[0].run(*CURL, "--max-time", seconds, f"{url}/ip", check=False).returncode == 0


def answers(world: World, *, expected: bool) -> bool:
    seconds = str(PATIENCE_S if expected else 1)
    command = (sys.executable, "-c", ASK, EXIT_IP, str(PORT), seconds)
    return world.internet.run(*command, check=False, timeout=PATIENCE_S + 30).returncode == 0
