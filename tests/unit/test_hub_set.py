"""Which hosts are the hubs follows from the members alone, and three or more are a cluster."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from appliance.fleet.membership.hub_set import HELD_MS, HeldHubs, HubSet
from appliance.fleet.membership.members import FleetMember
from tests.support.virtual_clock import VirtualClock

FRA = FleetMember("nod_1", "fra1", "fra", "standby", "U1", bytes(32), 1, dialled="a:1", hub_since=5)
AMS = FleetMember("nod_2", "ams1", "ams", "hub", "U2", bytes(32), 2, dialled="b:1", hub_since=7)
LIS = FleetMember("nod_3", "lis1", "lis", "standby", "U3", bytes(32), 1, dialled="c:1", hub_since=5)
WAW = FleetMember("nod_4", "waw1", "waw", "spoke", "U4", bytes(32), 0, hub_since=9)


def test_the_hub_comes_first_and_standbys_by_when_they_joined() -> None:
    """Spokes and hosts that have left are none, whatever their rows say."""
    found = HubSet.of([LIS, WAW, FRA, AMS])
    assert (found.hubs, found.since, found.is_cluster) == ((AMS, FRA, LIS), 7, True)
    assert HubSet.of([LIS, FRA, replace(AMS, left_at=8)]) == HubSet((FRA, LIS), 5)
    assert HubSet.of([WAW]) == HubSet((), 0)


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([AMS], id="one"),
        pytest.param([AMS, FRA], id="two: where one is lost, the other has no majority"),
        pytest.param([AMS, FRA, WAW], id="two and a spoke"),
        pytest.param([AMS, FRA, replace(LIS, dialled="")], id="one that the others cannot dial"),
        pytest.param([AMS, FRA, replace(LIS, left_at=8)], id="one that has left"),
    ],
)
def test_fewer_than_three_that_can_dial_each_other_are_no_cluster(members: list[FleetMember]) -> None:
    assert not HubSet.of(members).is_cluster


LEFT = [AMS, FRA, replace(LIS, left_at=8)]
ALONE = [replace(AMS, hub_since=9), replace(FRA, role="spoke"), replace(LIS, role="spoke")]


@pytest.mark.parametrize("then", [pytest.param(ALONE, id="one is chosen"), pytest.param(LEFT, id="one has left")])
def test_a_hub_leaves_a_cluster_once_the_others_have_heard_of_it(then: list[FleetMember]) -> None:
    """What is new of the same hubs holds at once: which one leads, and where they are dialled."""
    clock = VirtualClock()
    held = HeldHubs(clock)
    held.be("hub")
    assert held.of([AMS, FRA, LIS]).since == 7
    led = [replace(AMS, role="standby"), replace(FRA, role="hub", dialled="d:1"), LIS]
    assert held.of(led) == HubSet.of(led)
    clock.advance(60)
    assert held.of(then) == HubSet.of(led)
    clock.advance(HELD_MS / 1000 - 1)
    assert held.of(then) == HubSet.of(led)
    clock.advance(1)
    assert held.of(then) == HubSet.of(then)
    assert held.of(led) == HubSet.of(led)


def test_a_hub_that_was_none_before_goes_by_its_hubs_at_once() -> None:
    """As one that was promoted, since the others are lost; and one whose process has just started."""
    held = HeldHubs(VirtualClock())
    held.be("standby")
    assert held.of([AMS, FRA, LIS]).is_cluster
    held.be("hub")
    assert held.of(ALONE) == HubSet.of(ALONE)
