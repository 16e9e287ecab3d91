"""Which ports clients' packets leave with, by the ports that the host has taken."""

from __future__ import annotations

import random

import pytest

from appliance.network.firewall.port_ranges import ENOUGH_PORTS, choose, parse_ports, runs
from appliance.network.firewall.rules import PortRange

ALL = PortRange(1024, 65535)


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        pytest.param([], ALL, id="no listener"),
        pytest.param([22, 80, 443, 1023], ALL, id="privileged ports alone"),
        pytest.param([51820], PortRange(1024, 51819), id="the tunnel's"),
        pytest.param([8080, 9586], PortRange(9587, 65535), id="the API's and the metrics'"),
        pytest.param([1024, 65535], PortRange(1025, 65534), id="at both ends"),
        pytest.param([20000, 20001, 51820], PortRange(20002, 51819), id="side by side"),
        pytest.param([33279], PortRange(33280, 65535), id="the wider half"),
        pytest.param([p for p in range(1024, 65536) if p != 4000], PortRange(4000, 4000), id="one left"),
        pytest.param(range(65536), None, id="none left"),
    ],
)
def test_the_widest_run_without_a_listener(taken: list[int], chosen: PortRange | None) -> None:
    """The widest run of unprivileged ports that are not taken."""
    assert choose(set(taken)) == chosen


@pytest.mark.parametrize(
    ("taken", "current", "chosen"),
    [
        pytest.param([30000, 65000], PortRange(1024, 29999), PortRange(1024, 29999), id="enough: stays"),
        pytest.param([65000], PortRange(1024, 29999), PortRange(1024, 64999), id="a listener left: grows"),
        pytest.param([20000], PortRange(1024, 19999), PortRange(20001, 65535), id="not enough: moves"),
        pytest.param([20000, 51820], PortRange(1024, 51819), PortRange(20001, 51819), id="one appeared in it"),
        pytest.param([21844, 42665], PortRange(21845, 42664), PortRange(42666, 65535), id="a wider one, a little"),
        pytest.param([21845, 43690], PortRange(21846, 43689), PortRange(43691, 65535), id="a wider one, by one"),
        pytest.param([22528, 44032], PortRange(22529, 44031), PortRange(1024, 22527), id="a wider one, below"),
        pytest.param([21846, 42668], PortRange(43000, 60000), PortRange(42669, 65535), id="its run is the widest"),
    ],
)
def test_a_range_moves_no_more_than_it_must(taken: list[int], current: PortRange, chosen: PortRange) -> None:
    """It stays, and grows, while it is free and has enough ports; else the widest run."""
    assert choose(set(taken), current) == chosen


def test_of_runs_as_wide_as_each_other_the_one_with_the_current_ports() -> None:
    """The run that the range is, or else that has most of its ports."""
    tie = {p for p in range(1024, 65536) if p not in range(3000, 4000) and p not in range(50000, 51000)}
    for current in (PortRange(3000, 3999), PortRange(50000, 50999)):
        assert choose(tie, current) == current
    assert choose(tie, PortRange(2000, 3500)) == PortRange(3000, 3999)
    assert choose(tie, PortRange(50500, 52000)) == PortRange(50000, 50999)


def test_no_range_holds_a_taken_port() -> None:
    """Whatever is taken, and whatever the range was."""
    chance = random.Random(1)  # noqa: S311 - no secret
    current: PortRange | None = None
    for _ in range(300):
        taken = {chance.randrange(65536) for _ in range(chance.choice((0, 1, 5, 400)))}
        current = choose(taken, current)
        assert current is not None
        assert not any(port in current for port in taken)
        widest = max(run.width for run in runs(taken))
        assert current.width == widest or current.width >= ENOUGH_PORTS


@pytest.mark.parametrize(
    ("text", "ports"),
    [("\n", set()), ("8080\n", {8080}), ("8080,9000-9003\n", {8080, 9000, 9001, 9002, 9003}), ("1-2,4", {1, 2, 4})],
)
def test_reserved_ports_are_read(text: str, ports: set[int]) -> None:
    """As the kernel writes them."""
    assert parse_ports(text) == ports
