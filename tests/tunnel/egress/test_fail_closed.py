"""What must not pass does not pass while the firewall table is missing: flushed, stopped, at a start.

A client sends to blocked hosts all the time, over both IP versions; not one of its packets comes out.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.egress.capture import mac_of, send
from tests.support.egress.packets import SYN, tcp, token, udp
from tests.support.egress.steady_flood import Flood
from tests.support.egress.vantage import INSIDE_OF, WEB_OF, Vantage, vantage_on
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.egress.packets import Packet

EXTRA, EXTRA6 = "203.0.113.77", "2001:db8:2::77"
PRIVATE = {4: "10.9.9.9", 6: "fd99::9"}
LAN = {4: "198.51.100.34", 6: "2001:db8:1:2::2"}  # the second client's own, outside the tunnel
SMTP = 25

pytestmark = pytest.mark.black_box


@pytest.fixture(scope="module")
def exit_(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vantage]:
    changes = {
        "wireguard": {"keep_on_exit": True},
        "egress": {"extra_block": ["203.0.113.64/26", f"{EXTRA6}/128"]},
        "meter": {"interval": "60s"},
    }
    with vantage_on(backend, tmp_path_factory.mktemp("fail_closed"), **changes) as made:
        # On the link, so that it gets whatever leaves: without an address of its own a host would not be found.
        for address in (f"{EXTRA}/32", f"{PRIVATE[4]}/32"):
            made.world.internet.run("ip", "address", "add", address, "dev", "net0")
        for address in (f"{EXTRA6}/128", f"{PRIVATE[6]}/128"):
            made.world.internet.run("ip", "-6", "address", "add", address, "dev", "net0", "nodad")
        yield made


def forbidden(exit_: Vantage, mark: bytes) -> list[Packet]:
    """One of each kind and IP version; all carry the mark."""
    one, other = (client.address for client in exit_.clients)
    return [
        packet
        for version, extra in ((4, EXTRA), (6, EXTRA6))
        for packet in (
            udp(one[version], extra, mark),
            udp(one[version], PRIVATE[version], mark),
            tcp(one[version], WEB_OF[version], mark, SMTP, flags=SYN),
            udp(one[version], other[version], mark),
        )
    ]


@contextmanager
def nothing_passes(exit_: Vantage, show: Callable[[str], None]) -> Iterator[Flood]:
    """A client sends what is forbidden meanwhile; none of it comes out at either side."""
    mark = token()
    with Flood(exit_.clients[0], [packet.whole() for packet in forbidden(exit_, mark)]) as flood:
        flood.goes_on(100)
        yield flood
        flood.goes_on(100)
    outside, inside = exit_.far.carrying(mark), exit_.clients[1].seen.carrying(mark)
    show(f"{flood.sent} packets sent, {len(outside)} came out on the internet's side, {len(inside)} at another client")
    assert exit_.far.lost() == 0
    assert (outside, inside) == ([], [])


def is_served(exit_: Vantage) -> bool:
    client = exit_.clients[0].member.client
    return (client.get(f"{WEB}/ip", 3).strip(), client.get(f"{WEB6}/ip", 3).strip()) == (EXIT_IP, EXIT_IP6)


@contextmanager
def stopped(exit_: Vantage) -> Iterator[None]:
    """The server is away; its tunnels stay up."""
    exit_.appliance.stop()
    try:
        yield
    finally:
        exit_.appliance.start()


@pytest.mark.parametrize(
    "tampering",
    [
        "nft flush ruleset",
        pytest.param("nft delete table inet wg_appliance", marks=pytest.mark.long),
        pytest.param("nft flush table inet wg_appliance", marks=pytest.mark.long),
        "nft flush chain inet wg_appliance from_clients",
        pytest.param("nft flush set inet wg_appliance extra4", marks=pytest.mark.long),
    ],
)
def test_nothing_blocked_is_reached_while_the_table_is_restored(
    exit_: Vantage, tampering: str, show: Callable[[str], None]
) -> None:
    """The firewall is flushed while the server runs: no packet to where clients may not go passes, and soon what they
    may do works again."""
    with nothing_passes(exit_, show):
        for _ in range(3):
            # Repairs that are undone again and again are slowed down, and there is no table between them.
            until(lambda: "wg_appliance" in exit_.exit.sh("nft list tables"), "the table stands")
            exit_.exit.sh(tampering)
            time.sleep(0.1)  # the moment in which packets would pass
        until(lambda: is_served(exit_), "the internet is reached again")


@pytest.mark.under_kernel
def test_nothing_passes_without_server_and_table(exit_: Vantage, show: Callable[[str], None]) -> None:
    """The server is stopped, tunnels are kept and the firewall is flushed: clients reach nothing, and get nothing from
    the host either; hosts that it forwards for are forwarded as before. At the next start clients are served again, and
    nothing passes meanwhile."""
    with stopped(exit_):
        with nothing_passes(exit_, show):
            exit_.exit.sh("nft flush ruleset")
        for version in (4, 6):
            marks = [token(), token()]
            exit_.send(udp(exit_.clients[0].address[version], WEB_OF[version], marks[0]))
            neighbour = udp(LAN[version], WEB_OF[version], marks[1])
            mac = mac_of(exit_.world.exit, "lan2")
            send(exit_.world.clients[1], "eth0", neighbour.whole(), to_mac=mac)
            exit_.far.await_carrying(marks[1])
            assert exit_.far.carrying(marks[0]) == []
        before = len(exit_.clients[0].seen.packets())
        for version in (4, 6):
            exit_.exit.sh(f"ping -c 3 -i 0.05 -W 1 {exit_.clients[0].address[version]}", check=False)
        got = [each for each in exit_.clients[0].seen.packets()[before:] if str(each.source) in INSIDE_OF.values()]
        assert got == []
    until(lambda: is_served(exit_), "clients are served again")


def test_nothing_blocked_is_reached_while_the_server_starts(exit_: Vantage, show: Callable[[str], None]) -> None:
    """From the first moment of a start with tunnels up and without a table: nothing that is blocked passes."""
    exit_.appliance.stop()
    exit_.exit.sh("nft flush ruleset")
    with nothing_passes(exit_, show):
        exit_.appliance.start()
        until(lambda: is_served(exit_), "clients are served again")


WG_QUICK = (
    f"ip route add default via {WEB_OF[4]} dev wan table 51820",
    # Without priorities, and the later one to come first, as wg-quick has it.
    "ip rule add not fwmark 51820 table 51820",
    "ip rule add table main suppress_prefixlength 0",
)
AWAY_WITH_THEM = (
    "ip rule del not fwmark 51820; ip rule del table main suppress_prefixlength 0; ip route flush table 51820"
)


def rules_in_order(exit_: Vantage) -> list[str]:
    """Whose ip rules come after one another."""
    words = {"lookup local": "local", "goto": "ours", "suppress": "suppress", "lookup 51820": "wg-quick"}
    lines = exit_.exit.sh("ip rule").splitlines()
    return [name for line in lines for word, name in words.items() if word in line]


@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.long), "meanwhile"])
def test_beside_wg_quick_nothing_passes_and_all_else_does(
    exit_: Vantage, when: str, show: Callable[[str], None]
) -> None:
    """With rules as wg-quick adds them, before a start or while the server runs: clients are served, and nothing of
    them passes once server and table are gone, by the other tunnel's route either."""
    if when == "before":
        exit_.appliance.stop()
    exit_.exit.sh("; ".join(WG_QUICK))
    try:
        if when == "before":
            exit_.appliance.start()
        until(lambda: is_served(exit_), "clients are served")
        until(lambda: rules_in_order(exit_) == ["local", "ours", "suppress", "wg-quick"], "each is in its place")
        with stopped(exit_), nothing_passes(exit_, show):
            exit_.exit.sh("nft flush ruleset")
    finally:
        exit_.exit.sh(AWAY_WITH_THEM)


def test_the_hosts_own_rules_stay_in_force(exit_: Vantage) -> None:
    """What the operator routes otherwise is routed so: a rule for the tunnel's subnet applies to clients."""
    until(lambda: is_served(exit_), "clients are served")
    exit_.exit.sh("ip route add unreachable default table 77; ip rule add from 10.101.0.0/24 lookup 77 priority 30000")
    try:
        assert exit_.clients[0].space.run("ping", "-c", "1", "-W", "2", WEB_OF[4], check=False).returncode != 0
    finally:
        exit_.exit.sh("ip rule del from 10.101.0.0/24; ip route flush table 77")
    until(lambda: is_served(exit_), "clients are served again")


def test_what_is_not_ours_to_use_is_refused(exit_: Vantage) -> None:
    """A configured bit or priority that another program uses is refused in one line, which names it and touches
    nothing."""
    exit_.appliance.stop()
    exit_.exit.sh("ip rule add fwmark 0x40000/0xc0000 lookup main priority 5000")
    before = exit_.exit.sh("ip rule; ip -6 rule")
    try:
        for key, value, reason in (("mark", "0x80000", "uses this bit"), ("rule_priority", 4999, "is in its place")):
            exit_.appliance.configure(egress={key: value})
            status, said = exit_.appliance.try_to_start()
            assert (status, said.count("\n")) == (1, 1)
            assert f"egress.{key} = " in said
            assert "the ip rule of priority 5000" in said or "an ip rule of priority 5000" in said
            assert reason in said
            exit_.appliance.configure(egress={key: "auto"})
        assert exit_.exit.sh("ip rule; ip -6 rule") == before
    finally:
        exit_.exit.sh("ip rule del priority 5000")
        exit_.appliance.start()
