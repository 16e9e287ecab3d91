"""Checks how full the host's connection tracking is, and whether it has room for its clients. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.flow_capacity import ENOUGH, MAX
from appliance.ops.doctor.finding import START, Finding, ok, unseen, warning

if TYPE_CHECKING:
    from appliance.ops.doctor.facts import Facts

NEARLY_FULL = 0.8


def connections(facts: Facts) -> Finding:
    tracking = facts.machine.tracking
    if tracking is None:
        if not facts.machine.root:
            return unseen("connections", "how many connections the host tracks")
        return ok("connections", "none are tracked yet")
    size, sysctl = tracking.size, MAX.replace("/", ".")
    room = f"{size.count} of {size.limit} tracked" if size.limit else f"{size.count} tracked"
    if size.share >= NEARLY_FULL:
        what = f"{room}: when it is full, new ones fail, the host's own too"
        return warning("connections", what, "wg-appliance session list --flows, to see who holds them")
    if 0 < size.limit < min(ENOUGH, tracking.wanted):
        set_it = f"sysctl -w {sysctl}={min(ENOUGH, tracking.wanted)}"
        if tracking.changeable is False:
            what = f"{room}: few for many clients, and {sysctl} is read-only here"
            return warning("connections", what, f"on the machine around this container: {set_it}")
        if facts.state is None or not facts.state.served:
            return warning("connections", f"{room}; the server raises {sysctl} when it starts", START)
        return warning("connections", f"{room}: few for many clients", set_it)
    return ok("connections", room)
