"""Implements `wg-appliance doctor`."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from appliance.cli import output
from appliance.config.cautions import cautions
from appliance.config.foreign_variables import PREFIX
from appliance.config.load import AS_ROOT, config_path, read_settings
from appliance.domain.errors import ConfigError, HostError
from appliance.ops.doctor.finding import Finding, Status, failed, ok, warning
from appliance.store.file_owner import become_owner

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.config.load import Settings
    from appliance.ops.doctor.fleet import FleetFacts
    from appliance.store.state_dir import StateDir


@click.command()
@output.json_option
@click.pass_obj
def doctor(config_file: Path | None, as_json: bool) -> None:
    """Check this host and the running server; print each problem and the command that fixes it.

    Changes nothing. Exit status 1 if a check failed, 0 if there are only warnings.
    """
    findings = _examine(config_file)
    if as_json:
        output.write_json({"checks": [asdict(finding) for finding in findings]})
    else:
        for each in findings:
            output.write_item(f"{each.status:<7}  {each.check:<14}  ", each.what, each.mend)
    bad = [finding.check for finding in findings if finding.status is Status.FAILED]
    if bad:
        raise HostError(f"{len(bad)} of {len(findings)} checks failed: {', '.join(bad)}")


def _examine(config_file: Path | None) -> list[Finding]:
    file = config_path(config_file, os.environ)
    try:
        settings = read_settings(config_file, os.environ)
    except ConfigError as error:
        return [failed("config", f"{error}; nothing else can be checked before", _mend(str(error), file))]
    from appliance.ops.doctor.diagnosis import diagnose, diagnose_fleet
    from appliance.ops.doctor.gather import gather
    from appliance.store import inspection
    from appliance.store.state_dir import StateDir

    state = StateDir(settings.node.state_dir)

    config_read = _config(settings, str(file) if file.exists() else f"no {file}: all defaults", file)
    of_fleet = _gather_fleet(settings, state) if state.in_fleet else None  # first: root sees whose a port is
    facts = gather(settings, file, state, lambda: become_owner(state.path, inspection.rehearse))
    found = [config_read, *diagnose(facts)]
    if of_fleet is None:
        return found
    if isinstance(of_fleet, Finding):
        return [*found, of_fleet]
    store = None if facts.state is None else facts.state.store
    lacking = None if store is None or store.damage is not None else store.conflicts
    return [*found, *diagnose_fleet(replace(of_fleet, conflicts=lacking))]


def _gather_fleet(settings: Settings, state: StateDir) -> FleetFacts | Finding | None:
    """Returns the facts of a host in a fleet, or why they cannot be read."""
    from appliance.cli.fleet import packages
    from appliance.domain.clock import HostClock

    try:
        with packages():
            from appliance.fleet.status import doctor_gather
        return doctor_gather.gather(settings, state, HostClock().now())
    except (HostError, OSError) as error:
        return failed("fleet-member", str(error), "wg-appliance fleet status")


def _mend(error: str, file: Path) -> str:
    if variable := re.match(rf"{PREFIX}\w+", error):
        return f"unset {variable[0]}, where it is set"
    return "sudo wg-appliance doctor" if error.endswith(AS_ROOT) else f"nano {file}"


def _config(settings: Settings, source: str, file: Path) -> Finding:
    found = next(cautions(settings), None)
    if found is None:
        return ok("config", source)
    what, _, _ = found.rpartition("; ")
    return warning("config", what, f"nano {file}")
