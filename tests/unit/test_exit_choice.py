"""Which exit takes a session, and when one takes none."""

from __future__ import annotations

import pytest

from appliance.domain.errors import NoActiveNodeInRegion, NoActiveNodes
from appliance.sessions.node import Node, NodeHealth, Nodes
from tests.support.virtual_clock import VirtualClock

MAX_AGE_MS = 100_000


def node(region: str = "fsn", *, drained: bool = False, fault: str | None = None) -> Node:
    health = NodeHealth(VirtualClock(boot_ms=0), MAX_AGE_MS, fault)
    return Node("exit", region, "192.0.2.1", health, drained=drained)


def at(exit_: Node, boot_ms: int) -> NodeHealth:
    """The node's health, its clock set to this time."""
    clock = exit_.health._clock
    assert isinstance(clock, VirtualClock)
    clock.boot_ms = boot_ms
    return exit_.health


def test_a_node_is_inactive_before_its_first_check() -> None:
    """A node is not active before it was checked."""
    assert not Node("exit", "fsn", "192.0.2.1", NodeHealth(VirtualClock(), MAX_AGE_MS)).active


@pytest.mark.parametrize("inactive", [node(drained=True), node(fault="no tunnel")], ids=["drained", "faulty"])
def test_an_inactive_node_takes_no_session_and_shows_in_no_region(inactive: Node) -> None:
    """A drained or faulty node takes nothing and shows in no region."""
    nodes = Nodes(inactive)
    assert nodes.regions() == []
    with pytest.raises(NoActiveNodes):
        nodes.choose("fsn")


def test_regions_count_their_active_nodes() -> None:
    """Regions are counted over active nodes, by code; the others are what a refusal offers."""
    nodes = Nodes(node("nbg"), node("fsn"), node("nbg"), node("hel", drained=True))
    assert nodes.regions() == [("fsn", 1), ("nbg", 2)]
    assert nodes.choose("nbg").region == "nbg"
    for region in ("hel", "elsewhere"):
        with pytest.raises(NoActiveNodeInRegion, match=f"no active node in region {region}") as refusal:
            nodes.choose(region)
        assert refusal.value.available == ("fsn", "nbg")


def test_choice_skips_inactive() -> None:
    """Of two nodes in a region the active one is chosen."""
    active = node()
    assert Nodes(node(drained=True), active).choose("fsn") is active


def test_three_failed_applies_in_a_row_make_a_node_inactive() -> None:
    """Three in a row make it inactive; a success in between starts the row again."""
    exit_ = node()
    for _ in range(2):
        at(exit_, 0).apply_failed()
    assert exit_.active
    exit_.health.apply_succeeded()
    for _ in range(2):
        at(exit_, 0).apply_failed()
    assert exit_.active
    at(exit_, 0).apply_failed()
    assert not exit_.active


def test_a_good_check_forgives_failures_after_ten_seconds() -> None:
    """A check that finds nothing wrong forgives 10 s after the last failure, and not before; a failing one never."""
    exit_ = node()
    for boot_ms in (1000, 2000, 3000):
        at(exit_, boot_ms).apply_failed()
    at(exit_, 12_999).checked(None)
    assert not exit_.active
    at(exit_, 13_000).checked("still broken")
    assert not exit_.active
    at(exit_, 13_000).checked(None)
    assert exit_.active


def test_two_failures_are_kept() -> None:
    """A check between failures does not break their row."""
    exit_ = node()
    at(exit_, 0).apply_failed()
    at(exit_, 0).apply_failed()
    at(exit_, 60_000).checked(None)
    at(exit_, 60_000).apply_failed()
    assert not exit_.active


def test_a_node_that_is_no_longer_checked_is_inactive() -> None:
    """A node whose last check is too old is not active, and says why, until it is checked again."""
    exit_ = node()
    at(exit_, 5_000).checked(None)
    assert at(exit_, 5_000 + MAX_AGE_MS).healthy
    assert not at(exit_, 5_001 + MAX_AGE_MS).healthy
    assert not exit_.active
    assert exit_.health.fault == "the exit was last checked 100 s ago"
    exit_.health.checked(None)
    assert exit_.active


def test_a_node_with_a_crashed_task_is_inactive() -> None:
    """While a background task does not run the node is not active, and says which."""
    exit_ = node()
    exit_.health.task("the watch", "the watch crashed: ValueError: 7")
    exit_.health.task("another", None)
    assert not exit_.active
    assert exit_.health.fault == "the watch crashed: ValueError: 7"
    exit_.health.task("the watch", None)
    assert exit_.active
