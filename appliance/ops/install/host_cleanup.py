"""Removes the exit from the host: tunnel, firewall table, sysctls, and what a killed self-test has left."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.domain.clock import HostClock
from appliance.domain.errors import HostError
from appliance.network.firewall import coexistence, ruleset
from appliance.network.firewall.sysctls import Forwarding
from appliance.network.wireguard import kernel, link
from appliance.ops.selftest import cleanup, plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.config.settings import Settings
    from appliance.store.state_dir import StateDir


def clean_up(settings: Settings, state: StateDir, report: Callable[[str], None]) -> None:
    """Removes everything. The services must have stopped; wireguard-go removes its interface when it stops.

    Raises HostError if a step fails.
    """
    name = settings.wireguard.interface
    cleanup.clear(plan.names(name))
    if link.link_kind(name) == kernel.KIND:
        link.delete_link(name, kernel.KIND)
        report(f"interface {name}: removed")
    if _table_stands():
        _nft("-f", "-", script=ruleset.remove())
        report(f"nftables table inet {ruleset.TABLE}: removed")
    if passages := _passages():
        _nft("-f", "-", script=passages)
        report("rules that let clients through other firewalls: removed")
    if Forwarding(Path("/proc/sys"), state.sysctls, HostClock().now().boot_id).restore():
        report("sysctls: as they were when the service started")


def _table_stands() -> bool:
    try:
        return f"table inet {ruleset.TABLE}\n" in _nft("list", "tables")
    except FileNotFoundError:
        return False


def _passages() -> str:
    """Returns the nft script that deletes the appliance's rules from other programs' tables."""
    try:
        return coexistence.delete(_nft("--json", "--terse", "list", "ruleset"))
    except (FileNotFoundError, ValueError):  # nft is missing, or built without JSON
        return ""


def _nft(*arguments: str, script: str = "") -> str:
    done = subprocess.run(  # noqa: S603 (fixed words)
        ("/usr/sbin/nft", *arguments), input=script, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise HostError(f"nft: {done.stderr.strip()}")
    return done.stdout
