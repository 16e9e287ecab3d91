"""Runs all checks, in the order in which they are shown. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from appliance.ops.doctor import admission, firewall, fleet, machine, ports, server, state, tracking, tunnel
from appliance.ops.doctor.finding import warning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from appliance.ops.doctor.facts import Facts
    from appliance.ops.doctor.finding import Finding
    from appliance.ops.doctor.fleet import FleetFacts

F = TypeVar("F")

CHECKS: Sequence[Callable[[Facts], Finding]] = (
    server.server,
    server.tick,
    server.drift,
    server.contention,
    state.state,
    state.store,
    machine.disk,
    machine.clock,
    tunnel.wireguard,
    tunnel.udp_port,
    firewall.udp_filter,
    tunnel.public_address,
    tunnel.uplink,
    tunnel.subnet,
    tunnel.ipv6,
    tunnel.routing,
    firewall.forwarding,
    firewall.transit,
    firewall.nftables,
    admission.fail_closed,
    firewall.forward,
    ports.ports,
    tracking.connections,
)


def diagnose(facts: Facts) -> list[Finding]:
    return [_run(check, facts) for check in CHECKS]


def diagnose_fleet(facts: FleetFacts) -> list[Finding]:
    """Runs the checks of a host that is in a fleet."""
    return [_run(check, facts) for check in fleet.CHECKS]


def _run(check: Callable[[F], Finding], facts: F) -> Finding:
    try:
        return check(facts)
    except Exception as error:  # noqa: BLE001  a bug in one check must not hide the results of the others
        name = check.__name__.replace("_", "-")
        what = f"cannot be checked: {type(error).__name__}: {error}"
        return warning(name, " ".join(what.split()), "report this line and the output of wg-appliance --version")
