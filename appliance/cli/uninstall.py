"""Implements `wg-appliance uninstall`."""

from __future__ import annotations

import click

from appliance.cli import output
from appliance.cli.os_errors import host_faults

LEAVE = "wg-appliance fleet leave"


@click.command()
@click.option("--purge", is_flag=True, help="Remove configuration, state, server key and user too.")
@output.yes_option
def uninstall(purge: bool, yes: bool) -> None:
    """Remove the appliance from this host: service, tunnel, firewall table, sysctls and program."""
    from appliance.ops.install import facts, uninstalling
    from appliance.ops.install.layout import Layout, one_at_a_time

    facts.require_host("uninstall")
    layout = Layout()
    if uninstalling.is_in_fleet(layout):
        output.confirm(f"This host is in a fleet: {LEAVE} first has all reported. Uninstall all the same?", yes=yes)
    if purge:
        output.confirm("Remove accounts, sessions, server key and configuration for good?", yes=yes)
    with host_faults("cannot uninstall"), one_at_a_time(layout):
        uninstalling.uninstall(layout, facts.own_program(), output.write, purge=purge)
