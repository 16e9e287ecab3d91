"""Implements `wg-appliance upgrade`."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli import output
from appliance.cli.os_errors import host_faults


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
def upgrade(file: Path | None) -> None:
    """Upgrade the installed appliance to this version, or to that of FILE.

    Tunnels stay up. The state is backed up first; a version that is not ready within 30 s is rolled back.
    """
    from appliance.ops.install import facts, upgrading
    from appliance.ops.install.layout import Layout, one_at_a_time

    facts.require_host("upgrade")
    layout = Layout()
    with host_faults("cannot upgrade"), one_at_a_time(layout):
        if file is not None:
            upgrading.hand_over(file)
        upgrading.Upgrade(layout, facts.own_program(), output.write).run()
