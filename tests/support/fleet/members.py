"""Members of a fleet and their beats, as tests want them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from appliance.domain.clock import Moment
from appliance.fleet.membership.members import FleetMember
from appliance.fleet.presence.beats import Beat
from tests.support.virtual_clock import AFTERNOON

if TYPE_CHECKING:
    from appliance.fleet.membership.members import Role

HERE, AMS, FRA, SIN = ("nod_" + letter * 24 for letter in "0af5")
BOOT = 100_000


def a_member(id_: str, name: str, region: str, left_at: int | None = None, role: Role = "spoke") -> FleetMember:
    return FleetMember(id_, name, region, role, "U" + name.upper(), b"x" * 32, AFTERNOON, left_at)


def a_beat(node: str, **changes: Any) -> Beat:
    """A beat of an exit in region `eu` that takes sessions, of its process A, sent at AFTERNOON."""
    beat = Beat(
        node=node,
        p=(1, 1),
        inst="A",
        since=AFTERNOON - 60_000,
        n=1,
        t=AFTERNOON,
        name="ams1",
        region="eu",
        public_ip="192.0.2.1",
        version="1.0",
        ready=True,
        drained=False,
        live=0,
        room=100,
        mbps=0,
        line=1000,
    )
    return replace(beat, **changes)


def at(ms: int, wall_ms: int | None = None) -> Moment:
    """The moment `ms` after AFTERNOON, on this host."""
    return Moment(AFTERNOON + (ms if wall_ms is None else wall_ms), BOOT + ms, "boot")
