"""Names the hosts of a fleet for its parts."""

from appliance.domain.fleet_member import FleetMember, Role

__all__ = ["FleetMember", "Role"]
