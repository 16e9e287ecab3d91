"""Defines the command line, `wg-appliance`: the root command, and the mapping of errors to exit statuses.

Results go to stdout, remarks and errors to stderr. Exit status: 0 done, 1 failed with one line on stderr, 2 usage.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any

import click

from appliance import __version__
from appliance.cli.lazy_group import LazyCommands
from appliance.client.terminal import printable
from appliance.domain.errors import ApplianceError, StoreUnavailable

PROGRAM = "wg-appliance"

NOUNS = {
    "serve": ("appliance.cli.serve:serve", "Run the appliance in the foreground."),
    "init": ("appliance.cli.init:init", "Write a commented config, create the state directory, store and server key."),
    "account": ("appliance.cli.account:account", "Accounts: create, list, show, set, delete."),
    "token": ("appliance.cli.token:token", "Bearer tokens: create, list, revoke."),
    "session": ("appliance.cli.session:session", "Sessions: list, show, terminate."),
    "usage": ("appliance.cli.usage:usage", "What an account has used of its windows."),
    "invoice": ("appliance.cli.invoice:invoice", "A paid account's month, a line a session."),
    "backup": ("appliance.cli.backup:backup", "Save state, key and configuration to one file."),
    "restore": ("appliance.cli.restore:restore", "Bring a backup back, while the server does not run."),
    "selftest": ("appliance.cli.selftest:selftest", "Prove the running exit with a real tunnel."),
    "connect": (
        "appliance.cli.connect:connect",
        "Use an exit: a session, a tunnel to it, how it does; Ctrl-C ends it.",
    ),
    "regions": ("appliance.cli.regions:regions", "An exit's regions, and how far away they are."),
    "node": ("appliance.cli.node:node", "This exit: status, drain, resume."),
    "install": ("appliance.cli.install:install", "Make this host an exit: service, token and all."),
    "upgrade": ("appliance.cli.upgrade:upgrade", "Move an installed appliance to this version, or to that of a file."),
    "uninstall": ("appliance.cli.uninstall:uninstall", "Take the exit off this host."),
    "doctor": ("appliance.cli.doctor:doctor", "Check this host and the running server, and say what mends it."),
    "help": ("appliance.cli.help:help_", "Print a page of the manual, or name the topics."),
}


class Failed(click.ClickException):
    """Exits with `exit_code` (default 1) and one line on stderr."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # a class variable in click, which reads the instance's

    def show(self, file: IO[Any] | None = None) -> None:
        line = printable(" ".join(self.message.split()), getattr(file or sys.stderr, "encoding", None))
        click.echo(f"{PROGRAM}: error: {line}", file=file, err=True)


class Root(LazyCommands):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StoreUnavailable as error:
            raise Failed(f"{error}: {error.__cause__}; try again, and check the disk's space") from error
        except ApplianceError as error:
            raise Failed(str(error)) from error


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    click.echo(f"{PROGRAM} {__version__}")
    ctx.exit()


@click.group(cls=Root, lazy=NOUNS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration; else $WG_APPLIANCE_CONFIG, else /etc/wg-appliance/config.toml.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """A self-hosted WireGuard exit: session API, store and tunnel in one process."""
    ctx.obj = config


def main() -> None:
    """Runs the console script. Never returns."""
    cli(prog_name=PROGRAM)
