"""Implements `wg-appliance install`."""

from __future__ import annotations

import click

from appliance.cli import output
from appliance.cli.os_errors import host_faults
from appliance.cli.parameters import ADDRESS, REGION_CODE


@click.command()
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
@click.option(
    "--public-ip", type=ADDRESS, metavar="ADDRESS", help="What clients connect to; default: the host's own address."
)
@click.option(
    "--region", type=REGION_CODE, metavar="CODE", help="The code clients ask for; default: the provider's, else local."
)
def install(dry_run: bool, public_ip: str | None, region: str | None) -> None:
    """Install the appliance on this host: a running systemd service, and a token to use it.

    May be repeated: what is up to date is left alone, and an existing configuration is kept.
    """
    from appliance.ops.install import facts, installing
    from appliance.ops.install.layout import Layout, one_at_a_time

    facts.require_host("install")
    layout = Layout()
    with host_faults("cannot install"), one_at_a_time(layout):
        wanted = installing.InstallOptions(public_ip, region)
        installing.install(layout, facts.own_program(), wanted, output.write, dry_run=dry_run)
