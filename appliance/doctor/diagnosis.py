"""All checks, in the order in which they are shown. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.doctor import firewall, machine, server, state, tunnel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from appliance.doctor.facts import Facts
    from appliance.doctor.finding import Finding

CHECKS: Sequence[Callable[[Facts], Finding]] = (
    server.server,
    server.tick,
    server.drift,
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
    firewall.forwarding,
    firewall.nftables,
    firewall.forward,
)


def diagnose(facts: Facts) -> list[Finding]:
    return [check(facts) for check in CHECKS]
