"""Turns what the server has noted of the fleet into facts for a diagnosis. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from appliance.ops.doctor.fleet import FleetPeer, FleetStanding

if TYPE_CHECKING:
    from appliance.domain.clock import Moment
    from appliance.fleet.status.status_file import NotedStatus


def standing(noted: NotedStatus | None, now: Moment) -> FleetStanding | None:
    """Returns how the fleet stands; None: nothing was noted lately."""
    if noted is None or not noted.is_fresh(now):
        return None
    status = noted.status
    since = status.cut_off_since
    return FleetStanding(
        alone=status.alone,
        cut_off_since=None if since is None else int(datetime.fromisoformat(since).timestamp() * 1000),
        unsent=status.unsent_sessions,
        peers=tuple(
            FleetPeer(each.name, each.alive, each.fault, each.skew_ms)
            for each in status.nodes
            if each.id != status.this
        ),
        standbys=tuple((each.name, each.alive) for each in status.nodes if each.role == "standby"),
        behind=status.behind,
        failure=status.failure,
        taken=(status.taken, status.taken_of),
        agreed=status.quorum if status.hubs_since else None,
    )
