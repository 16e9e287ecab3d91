"""Runs all checks, in the order in which they are shown. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.ops.doctor import admission, firewall, machine, ports, server, state, tracking, tunnel
from appliance.ops.doctor.finding import warning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from appliance.ops.doctor.facts import Facts
    from appliance.ops.doctor.finding import Finding

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


def _run(check: Callable[[Facts], Finding], facts: Facts) -> Finding:
    try:
        return check(facts)
    except Exception as error:  # noqa: BLE001  a bug in one check must not hide the results of the others
        name = check.__name__.replace("_", "-")
        what = f"cannot be checked: {type(error).__name__}: {error}"
        return warning(name, " ".join(what.split()), "report this line and the output of wg-appliance --version")
