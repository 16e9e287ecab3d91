"""Implements `wg-appliance node ...`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from appliance.cli import admin, output
from appliance.cli.lazy_group import Commands
from appliance.cli.parameters import NAME
from appliance.config.load import read_settings
from appliance.domain import clock_steps
from appliance.domain.entities import Reason, State
from appliance.store.queries import devices as device_rows
from appliance.store.queries import node as rows
from appliance.store.queries import sessions as session_rows
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from appliance.cli.admin import Admin
    from appliance.fleet.status.status import FleetStatus

NO_CLIENTS = 3  # the network address, the exit's own and the broadcast address


@click.group(cls=Commands)
def node() -> None:
    """Show this exit's state, stop or resume taking new sessions, and join a fleet."""


@node.command()
@output.json_option
@click.pass_obj
def status(config_file: Path | None, as_json: bool) -> None:
    """Show this exit's state, and in a fleet all of its exits."""
    view = _fleet_view(config_file)

    async def work(a: Admin) -> tuple[dict[str, Any], FleetStatus | None]:
        return await _status(a), None if view is None else await view.known(a)

    fields, found = admin.run(config_file, work)
    if as_json:
        output.write_json(fields if view is None else {**fields, "fleet": view.as_json(found)})
        return
    words = {True: "yes", False: "no"}
    output.write_fields(
        [(name.replace("_", " "), words[value] if isinstance(value, bool) else value) for name, value in fields.items()]
    )
    if view is not None:
        output.write("")
        view.write_nodes(found)


def _fleet_view(config_file: Path | None) -> ModuleType | None:
    """Returns what shows the fleet that this host is in; None: it is in none, and nothing of fleets is imported."""
    if not StateDir(read_settings(config_file, os.environ).node.state_dir).in_fleet:
        return None
    from appliance.cli import fleet_view

    return fleet_view


@node.command()
@click.argument("name", type=NAME, required=False)
@click.option("--now", is_flag=True, help="End the live sessions too.")
@output.yes_option
@click.pass_obj
def drain(config_file: Path | None, name: str | None, now: bool, yes: bool) -> None:
    """Take no new sessions until `node resume`, also after a restart.

    NAME: on a hub, another exit of the fleet.
    """
    if name is not None:
        if now:
            raise click.UsageError("--now is for this exit alone: give it on the other one")
        _drain_another(config_file, name, drained=True)
        return
    if now:
        output.confirm("End all live sessions?", yes=yes)

    async def work(a: Admin) -> None:
        async with a.change() as db:
            await rows.set_drained(db, drained=True)
            if now:
                unfinished = await session_rows.unfinished(db)
                await session_rows.mark_closing(db, [s.id for s in unfinished], Reason.DRAINED)

    admin.run(config_file, work)
    output.remark("drained: no new sessions" + (", and the live ones are ended" if now else ""))


def _drain_another(config_file: Path | None, name: str, *, drained: bool) -> None:
    from appliance.cli.fleet import packages

    with packages():
        from appliance.cli import fleet_draining

    fleet_draining.drain(config_file, name, drained=drained)


@node.command()
@click.argument("name", type=NAME, required=False)
@click.option(
    "--accept-clock",
    is_flag=True,
    help="Also believe the wall clock, although it stepped; a drain ends too.",
)
@click.pass_obj
def resume(config_file: Path | None, name: str | None, accept_clock: bool) -> None:
    """Take new sessions again after a drain.

    NAME: on a hub, another exit of the fleet.
    """
    if name is not None:
        if accept_clock:
            raise click.UsageError("--accept-clock is for this exit alone: give it on the other one")
        _drain_another(config_file, name, drained=False)
        return

    async def work(a: Admin) -> tuple[int, int]:
        right = a.clock.host.now()
        async with a.change() as db:
            await rows.set_drained(db, drained=False)
            # Whether it is synchronised is not asked: the server may not be able to ask that.
            known = (await rows.read(db)).known(right)
            ahead_ms = 0 if known is None else clock_steps.contradiction_ms(known, right)
            if accept_clock and ahead_ms:
                await rows.accept_clock(db, right)
        return ahead_ms, right.wall_ms

    ahead_ms, right_ms = admin.run(config_file, work)
    output.remark("resumed: new sessions are taken")
    if accept_clock and ahead_ms:
        was = f"which is {clock_steps.in_words(ahead_ms)} what was believed"
        output.remark(f"the wall clock is taken to be right: {output.rfc3339(right_ms)}, {was}")
    elif accept_clock:
        output.remark(f"the wall clock, {output.rfc3339(right_ms)}, is believed already: there is nothing to accept")


@node.command()
@click.argument("token", metavar="TOKEN", nargs=-1, required=True)  # a paste may have blanks in it
@click.option(
    "--rename-accounts",
    "suffix",
    type=NAME,
    metavar="SUFFIX",
    help="Add this to the names of accounts that the fleet has too, where they have a history here.",
)
@output.yes_option
@click.pass_obj
def join(config_file: Path | None, token: tuple[str, ...], suffix: str | None, yes: bool) -> None:
    """Take this host into a fleet by a token of `fleet invite`; - reads it from stdin.

    A running server takes part without a restart. Accounts are the fleet's from then on.
    """
    from appliance.cli.fleet import packages

    with packages():
        from appliance.cli import fleet_joining

    fleet_joining.join(config_file, "".join(token), suffix, yes=yes)


@node.command()
@output.yes_option
@output.json_option
@click.pass_obj
def renumber(config_file: Path | None, yes: bool, as_json: bool) -> None:
    """Take devices along to another subnet, interface or key.

    For after it was changed in the configuration, while the server does not run. Each device gets an address of the
    new subnet; those whose files must be made anew, by `device rotate`, are listed.
    """
    from appliance.cli import renumbering  # loads what the other commands of the group do not need

    renumbering.renumber(config_file, yes=yes, as_json=as_json)


async def _status(a: Admin) -> dict[str, Any]:
    async with a.store.read() as db:
        row = await rows.read(db)
        unfinished = await session_rows.unfinished(db)
        devices = await device_rows.places(db)
    configured = a.settings.node
    return {
        "name": configured.name,
        "region": configured.region,
        "api": a.settings.api.url,
        "public_ip": str(configured.public_ip or "auto"),
        "interface": a.settings.wireguard.interface,
        "serving": a.state.is_served(),
        "drained": row.drained,
        "live_sessions": sum(s.state is State.LIVE for s in unfinished),
        # A replacement that is pending has the address of the session it replaces.
        "addresses_in_use": len({s.address_offset for s in unfinished} | devices.keys()),
        "addresses_of_devices": len(devices),
        "addresses_capacity": a.settings.wireguard.subnet.num_addresses - NO_CLIENTS,
        "store": str(a.state.store),
        **_clock(a),
    }


def _clock(a: Admin) -> dict[str, Any]:
    """Returns whether the wall clock is doubted, and then what the exit goes by."""
    if not a.clock.ahead_ms:
        return {"clock_doubted": False}
    return {
        "clock_doubted": True,
        "wall_clock": output.rfc3339(a.clock.host.now().wall_ms),
        "goes_on_with": output.rfc3339(a.now),
        "clock_remedy": f"{clock_steps.SYNCHRONISE}; if the wall clock is right: {clock_steps.ACCEPT}",
    }
