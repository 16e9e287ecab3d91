"""Removes the exit from the host: tunnel, firewall table, ip rules, sysctls, and what a killed self-test has left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.config import state_file
from appliance.domain.clock import HostClock
from appliance.network.admission.admission import remove_rules
from appliance.network.firewall import coexistence, nft, own_table, ruleset, table_choice
from appliance.network.firewall.conntrack_size import ConntrackSizes
from appliance.network.firewall.sysctls import Forwarding
from appliance.network.programs import ROOT_PATH, ProgramMissing
from appliance.network.wireguard import kernel, link, link_state
from appliance.ops import own_interface
from appliance.ops.selftest import cleanup, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from appliance.config.settings import Settings
    from appliance.store.state_dir import StateDir


def clean_up(settings: Settings, state: StateDir, report: Callable[[str], None]) -> None:
    """Removes everything. The services must have stopped; wireguard-go removes its interface when it stops.

    Raises HostError if a step fails, OSError if the kernel refuses to remove an ip rule.
    """
    name, environ = settings.wireguard.interface, {**os.environ, "PATH": ROOT_PATH}
    cleanup.clear(plan.names(name))
    if link_state.link_kind(name) == kernel.KIND:
        if (shown := own_interface.foreign(settings, state)) is None:
            link.delete_link(name, kernel.KIND)
            report(f"interface {name}: removed")
        else:
            report(f"interface {name}: kept, it is not ours: {shown}")
    table = own_table.standing(name, state.nftables, environ)
    if table is not None:
        nft.execute(ruleset.remove(table), environ)
        report(f"nftables table inet {table}: removed")
    if remove_rules(name):
        report(f"ip rules of {name}: removed")
    if passages := _passages(settings, table or table_choice.suffixed(name), environ):
        nft.execute(passages, environ)
        report("rules that let clients through other firewalls: removed")
    # Another appliance may take the name of the table meanwhile.
    state_file.forget(state.nftables)
    if Forwarding(Path("/proc/sys"), state.sysctls, HostClock().now().boot_id).restore():
        report("sysctls: as they were when the service started")
    if ConntrackSizes(Path("/proc"), state.conntrack, HostClock().now().boot_id).restore():
        report("size of connection tracking: as it was when the service started")


def _passages(settings: Settings, table: str, environ: Mapping[str, str]) -> str:
    """Returns the nft script that deletes the appliance's rules from other programs' tables."""
    tunnel = settings.wireguard
    try:
        return coexistence.delete(nft.listing(environ=environ), table, tunnel.interface, tunnel.listen_port)
    except (ProgramMissing, ValueError):  # nft is missing, or built without JSON
        return ""
