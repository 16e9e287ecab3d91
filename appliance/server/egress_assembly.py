"""Builds what controls clients' packets on this host: firewall, forwarding, connection tracking, source ports."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.config.own_ports import own_ports
from appliance.network.admission.admission import Admission
from appliance.network.admission.choice import note
from appliance.network.firewall.conntrack_size import ConntrackSizes, read_size
from appliance.network.firewall.firewall import HostEgress
from appliance.network.firewall.flow_capacity import flows_of_one
from appliance.network.firewall.host_ports import HostPorts
from appliance.network.firewall.rules import Blocks, EgressRules, FlowLimits, Marking, TunnelNetworks
from appliance.network.firewall.sysctls import Forwarding
from appliance.server.flow_watch import FlowWatch
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    import asyncio

    from appliance.config.load import Settings
    from appliance.server.assembly import LocalExit

PROC = Path("/proc")


def egress_rules(settings: Settings, local: LocalExit) -> EgressRules:
    """Builds the rules of the firewall from the configuration."""
    egress, exit_ = settings.egress, local.exit
    return EgressRules(
        tunnel=TunnelNetworks(exit_.interface, exit_.subnet, exit_.subnet6),
        blocks=Blocks(
            smtp=egress.block_smtp,
            private=egress.block_private,
            other_clients=egress.isolate_clients,
            extra=egress.extra_block,
            allowed=egress.extra_allow,
        ),
        translation=local.standing.translation,
        services=replace(local.services, public_ip=local.standing.address),
        flows=FlowLimits(egress.max_flows if egress.max_flows is not None else flows_by_default(), egress.new_flows),
        forward_others=egress.forward_others,
        marking=Marking(local.mark.bit),
    )


def flows_by_default() -> int:
    """Returns how many connections one client may have where the configuration leaves it to the host."""
    size = read_size(PROC)
    return flows_of_one(size.limit if size is not None else 0)


def conntrack_sizes(state: StateDir, boot_id: str) -> ConntrackSizes:
    """Builds what raises the size of the host's connection tracking table, and puts it back."""
    return ConntrackSizes(PROC, state.conntrack, boot_id)


def flow_watch(egress: HostEgress, stopping: asyncio.Event) -> FlowWatch:
    """Builds what keeps clients from filling the connection tracking table."""
    return FlowWatch(partial(read_size, PROC), egress.forget_excess, stopping)


def host_egress(settings: Settings, state: StateDir, local: LocalExit, boot_id: str, *, user_space: bool) -> HostEgress:
    """Builds the egress of this host: firewall, forwarding and flows. `user_space`: wireguard-go serves the tunnel."""
    forwarding = Forwarding(Path("/proc/sys"), state.sysctls, boot_id)
    moved = partial(note, record=state.admission) if settings.egress.rule_priority is None else None
    admission = Admission(settings.wireguard.interface, local.mark, moved)
    rules = egress_rules(settings, local)
    port, record = settings.wireguard.listen_port, state.nftables
    return HostEgress(rules, port, forwarding, record, admission, user_space=user_space)


def host_ports(settings: Settings) -> HostPorts:
    """Reads which ports this host listens on, so that clients' packets leave with others. Blocking."""
    hub = StateDir(settings.node.state_dir).is_hub
    ports = HostPorts(own_ports(settings, hub=hub), Path("/proc/sys"))
    ports.look()
    return ports
