"""Implements `wg-appliance regions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from appliance.cli import output
from appliance.cli.client_options import api_options
from appliance.cli.os_errors import host_faults

if TYPE_CHECKING:
    from appliance.cli.client_options import ClientContext


@click.command()
@api_options
@output.json_option
def regions(exit_: ClientContext, as_json: bool) -> None:
    """List the regions that have an active exit, and how far away their API is. Needs no token."""
    from appliance.client.api import responses
    from appliance.client.api.latency import round_trip_s

    found = responses.regions(exit_.api.ask("GET", "/v1/regions"))
    with host_faults("cannot measure the way"):
        milliseconds = round(round_trip_s(exit_.dialer) * 1000, 3)
    rows = [{**region, "latency_ms": milliseconds} for region in found]
    if as_json:
        output.write_json({"regions": rows})
        return
    output.write_table(
        ("REGION", "NODES", "LATENCY"),
        [(row["code"], row["node_count"], f"{row['latency_ms']:.1f} ms") for row in rows],
        "no region has an active exit",
    )
