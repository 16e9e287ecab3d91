"""Says which hubs a host dials, from the members that its store has. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.fleet.membership.identity import HubAddress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.fleet.membership.identity import Membership
    from appliance.fleet.membership.members import FleetMember, Role

SUFFIX = "hub.internal"  # of names in hubs' certificates: nobody looks them up


def address_of(node_id: str, dialled: str) -> HubAddress:
    """Returns where a hub is dialled, with the name in its certificate."""
    return HubAddress(dialled, f"{node_id.removeprefix('nod_')}.{SUFFIX}")


def hubs_of(members: Iterable[FleetMember]) -> tuple[HubAddress, ...]:
    """Returns the hubs' addresses, then those of hosts that are to be a hub; none where a hub's is not known."""
    found = [each for each in members if each.left_at is None and each.role != "spoke"]
    if not any(each.role == "hub" for each in found) or any(each.role == "hub" and not each.dialled for each in found):
        return ()
    found.sort(key=lambda each: (each.role != "hub", each.joined_at, each.id))
    return tuple(address_of(each.id, each.dialled) for each in found if each.dialled)


def brought_up_to_date(membership: Membership, own_id: str, role: Role, members: Iterable[FleetMember]) -> Membership:
    """Returns the membership as the store's members have it: a hub's own address first, another's own left out.

    An address that is known stays until a hub has told others.
    """
    own = address_of(own_id, "").server_name
    told = hubs_of(members) or membership.hubs
    others = tuple(each for each in told if each.server_name != own)
    if role == "hub":
        return replace(membership, role=role, hubs=tuple(each for each in told if each.server_name == own) + others)
    return replace(membership, role=role, hubs=others or membership.hubs)
