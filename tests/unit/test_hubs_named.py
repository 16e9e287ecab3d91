"""Who may be the hubs, and what is said where they may not, or where some of them are gone."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from appliance.cli.fleet_hubs import fit_addresses, named_members, said_of_the_rest
from appliance.cli.fleet_promoting import what_becomes_of
from appliance.domain.errors import Conflict, NotFound
from appliance.domain.fleet_member import FleetMember
from appliance.fleet.joining.messages import why_no_standby
from appliance.fleet.status.status import NodeStatus


def member(number: int, name: str) -> FleetMember:
    return FleetMember(f"nod_{number}", name, "x", "spoke", f"U{number}", bytes(32), number)


FRA, AMS, LIS, WAW = (member(n, name) for n, name in enumerate(("fra1", "ams1", "lis1", "waw1")))
MEMBERS = [replace(FRA, role="hub", dialled="a:1"), AMS, LIS, WAW]
HUBS = [MEMBERS[0], *(replace(each, role="standby", dialled=f"{each.name}:1") for each in (AMS, LIS)), WAW]


def node(of: FleetMember, *, alive: bool = True, dialled: str | None = "") -> NodeStatus:
    return NodeStatus(of.name, of.id, "x", of.role, alive, None, None, None, None, None, dialled)


def test_the_hosts_that_are_named_are_the_hubs() -> None:
    assert named_members(["lis1", "fra1", "ams1"], MEMBERS, FRA.id) == [LIS, MEMBERS[0], AMS]
    assert named_members(["fra1"], MEMBERS, FRA.id) == [MEMBERS[0]]


@pytest.mark.parametrize(
    ("names", "kind", "says"),
    [
        (["fra1", "ams1", "rom1"], NotFound, "no host rom1 is in the fleet: wg-appliance fleet status lists them"),
        (["fra1", "ams1", "ams1"], Conflict, "ams1 is named twice"),
        (["ams1", "lis1", "waw1"], Conflict, "this host, fra1, is the hub that leads, and has to be among them"),
        (["ams1"], Conflict, "this host, fra1, is the hub that leads"),
        (["fra1", "ams1"], Conflict, "2 hubs are worse than one, as none may be lost: name 3, or fra1 alone"),
    ],
)
def test_what_is_said_of_other_names(names: list[str], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        named_members(names, MEMBERS, FRA.id)


def test_each_is_dialled_where_it_has_told() -> None:
    """Of this host it is known here."""
    nodes = {each.id: node(each, dialled=f"{each.name}:1") for each in (AMS, LIS)}
    assert fit_addresses([FRA, AMS, LIS], FRA.id, nodes) == {AMS.id: "ams1:1", LIS.id: "lis1:1"}


@pytest.mark.parametrize(
    ("lis", "says"),
    [
        (None, "lis1 is away"),
        (node(LIS, alive=False, dialled="lis1:1"), "lis1 is away: have it connect first"),
        (node(LIS, dialled=None), "lis1 has not told where it would be dialled.*older version: wg-appliance upgrade"),
        (node(LIS, dialled=""), "lis1 has no nats-server, or no address that others could dial: there, pip install"),
        (node(LIS, dialled="ams1:1"), "lis1 would be dialled at ams1:1, as another one: set fleet.advertise there"),
    ],
)
def test_what_is_said_of_a_host_that_cannot_be_a_hub(lis: NodeStatus | None, says: str) -> None:
    nodes = {AMS.id: node(AMS, dialled="ams1:1")} | ({} if lis is None else {LIS.id: lis})
    with pytest.raises(Conflict, match=says):
        fit_addresses([FRA, AMS, LIS], FRA.id, nodes)


def test_what_is_said_where_a_host_leaves() -> None:
    """Of three hubs two are left, of which neither may be lost; of a spoke, or a single standby, nothing is said."""
    left, again = said_of_the_rest(HUBS, "lis1")
    assert left.startswith("fra1, ams1 are no longer hubs of which either may be lost")
    assert "wg-appliance fleet hubs" in again
    assert said_of_the_rest(HUBS, "waw1") == []
    assert said_of_the_rest(HUBS[:2], "ams1") == []
    four = [*HUBS[:3], replace(WAW, role="standby", dialled="d:1")]
    assert said_of_the_rest(four, "lis1") == ["the hubs are fra1, ams1, waw1 now"]


def test_what_is_said_of_the_hubs_of_before() -> None:
    """One that was the hub becomes the standby; of several, all become spokes."""
    assert what_becomes_of(["fra1"])[0].endswith("fra1 becomes the standby when it is back")
    first, then = what_becomes_of(["fra1", "lis1"])
    assert "fra1, lis1 become spokes when they are back" in first
    assert "wg-appliance fleet hubs" in then


def test_beside_several_hubs_no_standby_is_let_in() -> None:
    """What is said instead names the command by which the host is a hub, too; one hub has one standby."""
    assert why_no_standby(MEMBERS) is None
    assert "ams1 is the fleet's standby already" in (why_no_standby(HUBS[:2]) or "")
    said = why_no_standby(HUBS) or ""
    assert said.startswith("the hubs are fra1, ams1, lis1, and none of them has a standby: invite the host without")
    assert said.endswith("wg-appliance fleet hubs fra1 ams1 lis1 NAME")
