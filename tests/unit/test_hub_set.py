"""Which hosts are the hubs follows from the members alone, and three or more are a cluster."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from appliance.fleet.membership.hub_set import HubSet
from appliance.fleet.membership.members import FleetMember

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
