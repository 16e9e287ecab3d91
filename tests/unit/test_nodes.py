"""Which exit takes a session, and when one takes none."""

from __future__ import annotations

import pytest

from appliance.errors import NoActiveNodeInRegion, NoActiveNodes
from appliance.nodes import Node, Nodes


def node(region: str = "fsn", *, drained: bool = False, fault: str | None = None) -> Node:
    return Node("exit", region, "192.0.2.1", drained=drained, fault=fault)


def test_starting() -> None:
    """A node is not active before it was checked."""
    assert not Node("exit", "fsn", "192.0.2.1").active


@pytest.mark.parametrize("inactive", [node(drained=True), node(fault="no tunnel")], ids=["drained", "faulty"])
def test_inactive(inactive: Node) -> None:
    """A drained or faulty node takes nothing and shows in no region."""
    nodes = Nodes(inactive)
    assert nodes.regions() == []
    with pytest.raises(NoActiveNodes):
        nodes.choose("fsn")


def test_regions() -> None:
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


def test_failed_applies() -> None:
    """Three in a row make it inactive; a success in between starts the row again."""
    exit_ = node()
    for _ in range(2):
        exit_.apply_failed(0)
    assert exit_.active
    exit_.apply_succeeded()
    for _ in range(2):
        exit_.apply_failed(0)
    assert exit_.active
    exit_.apply_failed(0)
    assert not exit_.active


def test_retry() -> None:
    """A check that finds nothing wrong forgives 10 s after the last failure, and not before; a failing one never."""
    exit_ = node()
    for boot_ms in (1000, 2000, 3000):
        exit_.apply_failed(boot_ms)
    exit_.checked(None, 12_999)
    assert not exit_.active
    exit_.checked("still broken", 13_000)
    assert not exit_.active
    exit_.checked(None, 13_000)
    assert exit_.active


def test_two_failures_are_kept() -> None:
    """A check between failures does not break their row."""
    exit_ = node()
    exit_.apply_failed(0)
    exit_.apply_failed(0)
    exit_.checked(None, 60_000)
    exit_.apply_failed(60_000)
    assert not exit_.active
