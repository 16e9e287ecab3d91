"""Implements `wg-appliance selftest`."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from appliance.cli import output
from appliance.cli.os_errors import host_faults
from appliance.config.load import read_settings
from appliance.domain.clock import HostClock
from appliance.domain.errors import HostError
from appliance.store.file_owner import acting_as_owner
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.ops.selftest.run import StepOutcome


@click.command()
@output.json_option
@click.pass_obj
def selftest(config_file: Path | None, as_json: bool) -> None:
    """Test the running exit: a session, a tunnel from a network namespace, traffic and its count. Needs root."""
    from appliance.client.signals import Interruption
    from appliance.ops.selftest.api_client import LocalApi
    from appliance.ops.selftest.run import run
    from appliance.ops.selftest.steps import SelfTest
    from appliance.ops.selftest.temporary_account import TemporaryAccount

    if os.geteuid() != 0:
        raise HostError("selftest makes network namespaces: run it as root")
    settings = read_settings(config_file, os.environ)
    account = TemporaryAccount(StateDir(settings.node.state_dir), HostClock(), acting_as_owner)
    interruption = Interruption()
    test = SelfTest(settings, LocalApi(settings.api), account, interruption)
    outcomes: list[StepOutcome] = []

    def report(outcome: StepOutcome) -> None:
        outcomes.append(outcome)
        if not as_json:
            output.write_item(*_parts(outcome))

    with host_faults("cannot test the exit"), account.held():
        run(test.steps(), test.clearing(), interruption, report)
    if as_json:
        output.write_json({"passed": all(o.passed for o in outcomes), "steps": [asdict(o) for o in outcomes]})
    failed = [f"{o.step}: {o.detail}; {o.advice}" for o in outcomes if not o.passed]
    if failed:
        raise HostError(f"the self-test failed at {', and at '.join(failed)}")


def _parts(outcome: StepOutcome) -> tuple[str, str]:
    """Returns what an outcome is about, and what it says."""
    word = "ok" if outcome.passed else "failed"
    return f"{word:<6}  {outcome.step:<9}  {outcome.seconds:7.3f} s  ", outcome.detail
