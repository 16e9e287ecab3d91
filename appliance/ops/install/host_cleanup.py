"""Removes the exit from the host: tunnel, firewall table, ip rules, sysctls, and what a killed self-test has left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.domain.clock import HostClock
from appliance.network.admission.admission import remove_rules
from appliance.network.firewall import coexistence, nft, ruleset
from appliance.network.firewall.sysctls import Forwarding
from appliance.network.programs import ROOT_PATH, ProgramMissing
from appliance.network.wireguard import kernel, link
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
    if link.link_kind(name) == kernel.KIND:
        link.delete_link(name, kernel.KIND)
        report(f"interface {name}: removed")
    if f"inet {ruleset.TABLE}" in nft.tables(environ):
        nft.execute(ruleset.remove(), environ)
        report(f"nftables table inet {ruleset.TABLE}: removed")
    if remove_rules(name):
        report(f"ip rules of {name}: removed")
    if passages := _passages(environ):
        nft.execute(passages, environ)
        report("rules that let clients through other firewalls: removed")
    if Forwarding(Path("/proc/sys"), state.sysctls, HostClock().now().boot_id).restore():
        report("sysctls: as they were when the service started")


def _passages(environ: Mapping[str, str]) -> str:
    """Returns the nft script that deletes the appliance's rules from other programs' tables."""
    try:
        return coexistence.delete(nft.listing(environ=environ))
    except (ProgramMissing, ValueError):  # nft is missing, or built without JSON
        return ""
