"""Policy rules and routes of other programs take clients' packets elsewhere: it is said, for as long as it is so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.waiting import until
from tests.support.tunnel.watched_exit import WatchedExit, watched_exit
from tests.support.tunnel.world import EXIT_IP, EXIT_IP6, WEB, WEB6, WEB_IP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

NET, NET6 = "10.101.0.0/24", "fd65:7869:7400::/112"
OTHER_TABLE = "ip route add default dev lan2 table 77"

# What is done, what undoes it, and what is said.
FAULTS = [
    pytest.param(f"ip rule add to {NET} lookup 77", "sends out of lan2", id="answers to another table"),
    pytest.param(
        f"ip rule add from {NET} blackhole",
        "refuses (Invalid argument)",
        id="clients to a blackhole",
        marks=pytest.mark.long,
    ),
    pytest.param(
        f"ip rule add from {NET} prohibit",
        "refuses (Permission denied)",
        id="clients prohibited",
        marks=pytest.mark.long,
    ),
    pytest.param("ip rule add iif {wg} unreachable", "refuses (", id="the tunnel unreachable"),
    pytest.param(
        "ip rule add iif wan lookup 77", "sends out of lan2", id="the uplink to another table", marks=pytest.mark.long
    ),
    pytest.param(f"ip -6 rule add to {NET6} prohibit", "clients' IPv6 traffic", id="IPv6 answers prohibited"),
    pytest.param(
        f"ip -6 rule add from {NET6} blackhole",
        "clients' IPv6 traffic",
        id="IPv6 clients to a blackhole",
        marks=pytest.mark.long,
    ),
    pytest.param(
        "ip route add 10.101.0.2/32 dev lan2", "sends out of lan2", id="a client's own route", marks=pytest.mark.long
    ),
    pytest.param("ip route add 10.101.0.64/26 dev lan2", "10.101.0.64/26 out of lan2", id="a part of the subnet"),
    pytest.param(
        "ip route add blackhole 10.101.0.77/32",
        "10.101.0.77/32 nowhere",
        id="a blackhole for an address",
        marks=pytest.mark.long,
    ),
    pytest.param("ip address add 10.101.0.3/32 dev lan2", "10.101.0.3 is an address of this host", id="one on a link"),
    pytest.param("ip rule add to 10.101.0.128/25 lookup 77", "sends out of lan2", id="a part to another table"),
    pytest.param(
        "ip rule add from 10.101.0.77 prohibit",
        "(Permission denied) what comes in by",
        id="an address prohibited",
        marks=pytest.mark.long,
    ),
    pytest.param(
        "ip -6 rule add to fd65:7869:7400::8/125 prohibit", "clients' IPv6 traffic", id="a part of IPv6 prohibited"
    ),
    pytest.param("ip -6 route add fd65:7869:7400::8/125 dev lan2", "7400::8/125 out of lan2", id="a part of IPv6's"),
]


@pytest.fixture(scope="module")
def exit_(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedExit]:
    with watched_exit(backend, tmp_path_factory.mktemp("routing"), meter={"interval": "60s"}) as made:
        made.sh(OTHER_TABLE)
        yield made
        made.sh("ip route flush table 77")


def ready(exit_: WatchedExit) -> bool:
    return exit_.appliance.api("GET", "/readyz").status == 200


def works(exit_: WatchedExit) -> bool:
    client = exit_.members[0].client
    return (client.get(f"{WEB}/ip", 5), client.get(f"{WEB6}/ip", 5)) == (EXIT_IP, EXIT_IP6)


@pytest.mark.black_box
@pytest.mark.parametrize(("fault", "said"), FAULTS)
def test_it_is_said_while_it_lasts(exit_: WatchedExit, fault: str, said: str) -> None:
    """/readyz, the log and a metric say that clients' traffic does not pass, and why, and when it passes again."""
    logged = len(exit_.appliance.log())
    exit_.sh(fault)
    try:
        reason = until(lambda: not ready(exit_) and str(exit_.appliance.api("GET", "/readyz").body), "told")
        assert said in str(reason)
        assert "wg_appliance_clients_routed 0.0" in exit_.sh("curl -s http://127.0.0.1:9586/metrics")
        assert said in exit_.appliance.log()[logged:]
    finally:
        exit_.sh(fault.replace(" add ", " del "))
    until(lambda: ready(exit_), "it is ready")
    assert exit_.appliance.log()[logged:].count("not ready: ") == 1
    assert works(exit_)


def test_routing_of_the_operators_own_is_no_fault(exit_: WatchedExit) -> None:
    """A rule that sends clients' packets out by a table of its own, and what concerns others, is nothing to say."""
    exit_.sh(f"ip route add default via {WEB_IP} dev wan table 78 && ip rule add from {NET} lookup 78")
    exit_.sh("ip rule add from 198.51.100.34 prohibit && ip route add 10.102.0.0/24 dev lan2")
    try:
        logged = len(exit_.appliance.log())
        exit_.sh("ip link set lan2 mtu 1400 && ip link set lan2 mtu 1500")  # an event
        assert works(exit_)
        assert ready(exit_)
        assert "not ready" not in exit_.appliance.log()[logged:]
    finally:
        exit_.sh(f"ip rule del from {NET} lookup 78; ip route flush table 78")
        exit_.sh("ip rule del from 198.51.100.34 prohibit; ip route del 10.102.0.0/24 dev lan2")


def test_doctor_says_it_too(exit_: WatchedExit) -> None:
    """doctor names the fault; when the rule has gone the exit is ready by itself."""
    exit_.sh(f"ip rule add from {NET} prohibit")
    try:
        until(lambda: not ready(exit_), "told")
        found = exit_.appliance.attempt("doctor").stdout
        (line,) = [line for line in found.splitlines() if " routing " in line]
        assert line.startswith("failed")
        assert "Permission denied" in line
    finally:
        exit_.sh(f"ip rule del from {NET} prohibit")
    until(lambda: ready(exit_), "it is ready")


def test_an_exit_that_starts_with_such_a_rule_gets_ready_without_it(
    world: World, start_appliance: Callable[..., Appliance], client: Client
) -> None:
    """It serves and repairs, and says that it is not ready; when the rule has gone it is, by itself."""
    appliance = start_appliance()
    client.wg_quick(appliance.open(appliance.token())["wg_config"])
    world.exit.run("ip", "rule", "add", "from", NET, "prohibit")
    appliance.kill()
    appliance.start_unready()
    until(lambda: appliance.api("GET", "/readyz").status == 503, "it serves")
    assert "Permission denied" in str(appliance.api("GET", "/readyz").body)
    world.exit.run("ip", "rule", "del", "from", NET, "prohibit")
    until(lambda: appliance.api("GET", "/readyz").status == 200, "it is ready")
    assert (client.address_seen(), client.address_seen(WEB6)) == (EXIT_IP, EXIT_IP6)
