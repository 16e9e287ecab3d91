"""Implements `wg-appliance fleet ...`. What needs the fleet's packages is imported when a command runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from appliance.cli import output
from appliance.cli.lazy_group import Commands
from appliance.cli.parameters import DURATION, NAME
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGES = {"nats", "nacl", "cryptography"}


@contextmanager
def packages() -> Iterator[None]:
    """Names what to install where a package of the fleet's is missing. Raises HostError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in PACKAGES:
            raise
        raise HostError(
            f"the package {error.name} is not installed, which a fleet needs: pip install 'wg-appliance[fleet]'"
        ) from error


@click.group(cls=Commands)
def fleet() -> None:
    """Make several exits one fleet: one API, one set of accounts. See `wg-appliance help fleet`."""


@fleet.command()
@click.pass_obj
def init(config_file: Path | None) -> None:
    """Make this host the hub of a new fleet, and print the command by which a second host joins.

    A running server takes part without a restart.
    """
    with packages():
        from appliance.cli import fleet_founding

    fleet_founding.init(config_file)


@fleet.command()
@click.option("--hub", is_flag=True, help="For the standby, which can be made the hub.")
@click.option(
    "--expires", type=DURATION, default="1h", show_default=True, metavar="DURATION", help="Such as 10m or 1h."
)
@click.pass_obj
def invite(config_file: Path | None, hub: bool, expires: int) -> None:
    """Print a token with which one host can join the fleet, once. On the hub."""
    with packages():
        from appliance.cli import fleet_founding

    fleet_founding.invite(config_file, as_hub=hub, lifetime_s=expires)


@fleet.command()
@click.argument("names", type=NAME, nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def hubs(config_file: Path | None, names: tuple[str, ...]) -> None:
    """Make three hosts, or more, the hubs, this one among them: another leads by itself if one is lost.

    With the name of this host alone, it is the only hub again.
    """
    with packages():
        from appliance.cli import fleet_hubs

    fleet_hubs.hubs(config_file, names)


@fleet.command()
@click.option("--force", is_flag=True, help="Also if the hub answers, or has changes that this host lacks.")
@click.pass_obj
def promote(config_file: Path | None, force: bool) -> None:
    """Make the standby, on which this is run, the hub, as the hub is lost.

    A running server does it without a restart. The old hub becomes the standby when it is back.
    """
    with packages():
        from appliance.cli import fleet_promoting

    fleet_promoting.promote(config_file, force=force)


@fleet.command()
@click.option("--dismiss", is_flag=True, help="Forget them, once they are shown.")
@output.json_option
@click.pass_obj
def conflicts(config_file: Path | None, dismiss: bool, as_json: bool) -> None:
    """List what this host had changed as the hub, and the hub that replaced it lacks: do it again there."""
    with packages():
        from appliance.cli import fleet_promoting

    fleet_promoting.conflicts(config_file, dismiss=dismiss, as_json=as_json)


@fleet.command("rotate-ca")
@click.pass_obj
def rotate_ca(config_file: Path | None) -> None:
    """Replace the authority that signs the hub's certificate, on the hub; the exits trust both for a week.

    A running server does it without a restart, and no exit is cut off that is connected in that week.
    """
    with packages():
        from appliance.cli import fleet_rotating

    fleet_rotating.rotate_ca(config_file)


@fleet.command()
@output.json_option
@click.pass_obj
def status(config_file: Path | None, as_json: bool) -> None:
    """Show the fleet's exits, and what is not reported to the hub yet."""
    with packages():
        from appliance.cli import fleet_view

    fleet_view.status(config_file, as_json=as_json)


@fleet.command()
@click.option("--force", is_flag=True, help="Also if the hub is not reached, or others are in the fleet of this hub.")
@output.yes_option
@click.pass_obj
def leave(config_file: Path | None, force: bool, yes: bool) -> None:
    """Take this host out of the fleet: it is a whole single exit again.

    Its live sessions end, all is reported to the hub, and then the hub lets it in no more.
    """
    with packages():
        from appliance.cli import fleet_leaving

    fleet_leaving.leave(config_file, force=force, yes=yes)


@fleet.command()
@click.argument("name", type=NAME)
@output.yes_option
@output.json_option
@click.pass_obj
def forget(config_file: Path | None, name: str, yes: bool, as_json: bool) -> None:
    """Take a host that is lost out of the fleet, for good. On the hub.

    What it has not reported is not counted. Its clients' keys are free at once, for other exits, and its devices are
    named: each is to be made anew on another exit. To come back, the host joins with a new token.
    """
    with packages():
        from appliance.cli import fleet_forgetting

    fleet_forgetting.forget(config_file, name, yes=yes, as_json=as_json)
