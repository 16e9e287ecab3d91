"""With the tunnel up, nothing of the client leaves it but WireGuard's own packets."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import netns
from tests.support.egress.capture import Capture, Seen
from tests.support.egress.packets import ICMP6, token
from tests.support.tunnel.waiting import until
from tests.support.tunnel.watched_exit import watched_exit
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB6, WEB_IP, WEB_IP6

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.egress.vantage import Vantage
    from tests.support.tunnel.client import Client
    from tests.support.tunnel.watched_exit import WatchedExit

WIREGUARD_PORT = 51820
RESOLVER = WEB_IP  # off the client's own link, as most are
# Neighbour discovery and group membership (RFC 4861, RFC 3810) are the link's own, and no router passes them on.
OF_THE_LINK = range(130, 138), (143,)


def is_outside(seen: Seen) -> bool:
    if seen.protocol == ICMP6 and seen.icmp is not None and any(seen.icmp[0] in kinds for kinds in OF_THE_LINK):
        return False
    with_exit = EXIT_IP in (str(seen.source), str(seen.destination))
    return not (with_exit and seen.protocol == socket.IPPROTO_UDP and WIREGUARD_PORT in seen.ports)


def try_all_ways(client: Client, mark: bytes) -> None:
    """Of every protocol and both IP versions, to the internet, to where nobody may go, to the exit; a resolver."""
    with netns.Namespace(client.space.name).entered():
        four, six = (socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6))
    with four, six:
        for address in (RESOLVER, WEB_IP, EXIT_IP, "8.8.8.8", "10.1.1.1", "169.254.169.254", "10.101.0.1"):
            _try(four, mark, address, 53)
        for address in (WEB_IP6, EXIT_IP6, "2606:4700::1111", "fd00::1", "2001:db8:1:2::2"):
            _try(six, mark, address, 53)
    for url in (WEB, WEB6, f"http://{EXIT_IP}:8080", "http://192.0.2.1", "http://[2001:db8:ffff::1]"):
        client.get(f"{url}/ip", seconds=1)
    for address in (WEB_IP, WEB_IP6, "192.0.2.1", "2001:db8:ffff::1"):
        client.space.run("ping", "-c", "1", "-W", "1", address, check=False)


def _try(socket_: socket.socket, mark: bytes, address: str, port: int) -> None:
    try:
        socket_.sendto(mark, (address, port))
    except OSError as error:
        sys.stderr.write(f"{address}: {error}\n")  # without a way to send, nothing leaks


def no_leak(exit_: WatchedExit) -> None:
    client, mark = exit_.members[0].client, token()
    with Capture(client.space, "eth0") as outside, Capture(exit_.world.internet, "net0") as far:
        try_all_ways(client, mark)
        assert client.address_seen(WEB) == EXIT_IP
        until(lambda: far.carrying(mark), "what may leave the exit does")
        seen = outside.packets()
        assert outside.lost() == 0
    assert [each for each in seen if is_outside(each)] == []
    assert sum(each.sent for each in seen) > 20, "WireGuard's own packets were seen"


@pytest.mark.under_kernel
def test_a_dual_stack_client_sends_wireguard_packets_alone(exit_: Vantage) -> None:
    """Whatever a client sends, its link to the exit's network sees WireGuard's packets and no other."""
    no_leak(exit_.exit)


def test_an_ipv4_only_client_sends_wireguard_packets_alone(backend: str, tmp_path: Path) -> None:
    """Nor where the tunnel has no IPv6 and the client has."""
    with watched_exit(backend, tmp_path, wireguard={"subnet6": ""}) as exit_:
        no_leak(exit_)


def test_a_leak_is_seen(exit_: Vantage) -> None:
    """A packet that does go around the tunnel is counted: the tests above can fail."""
    space = exit_.clients[0].space
    space.run("ip", "route", "add", "192.0.2.7/32", "via", "198.51.100.17")
    space.run("ip", "rule", "add", "to", "192.0.2.7", "lookup", "main", "pref", "1")
    try:
        with Capture(space, "eth0") as outside:
            space.run("ping", "-c", "1", "-W", "1", "192.0.2.7", check=False)
            assert any(is_outside(each) for each in outside.packets())
    finally:
        space.run("ip", "rule", "del", "pref", "1")
        space.run("ip", "route", "del", "192.0.2.7/32")
