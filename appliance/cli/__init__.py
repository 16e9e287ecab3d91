"""Defines the command line, `wg-appliance`: the root command, and the mapping of errors to exit statuses.

Results go to stdout, remarks and errors to stderr. Exit status: 0 done, 1 failed with one line on stderr, 2 usage.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import IO, Any

import click

from appliance import __version__
from appliance.cli import program_files, standard_streams, unexpected
from appliance.cli.lazy_group import LazyCommands
from appliance.client.terminal import printable
from appliance.domain.errors import ApplianceError, StoreUnavailable

PROGRAM = "wg-appliance"
OWNER = 0o700
OTHERS_WRITE = 0o022  # umask: whatever the caller's is, no file or folder is made that others can write to

COMMANDS = {
    "serve": ("appliance.cli.serve:serve", "Run the appliance in the foreground."),
    "init": ("appliance.cli.init:init", "Write a commented config, create the state directory, store and server key."),
    "account": ("appliance.cli.account:account", "Manage accounts: create, list, show, set, delete."),
    "token": ("appliance.cli.token:token", "Manage bearer tokens: create, list, revoke."),
    "device": ("appliance.cli.device:device", "Manage devices, whose files stay good: add, list, show, pause, remove."),
    "session": ("appliance.cli.session:session", "List, show and terminate sessions."),
    "usage": ("appliance.cli.usage:usage", "Show what an account has used of its windows."),
    "invoice": ("appliance.cli.invoice:invoice", "Show a paid account's invoice for a month, one line per session."),
    "backup": ("appliance.cli.backup:backup", "Save state, server key and configuration to one file."),
    "restore": ("appliance.cli.restore:restore", "Restore a backup while the server is stopped."),
    "selftest": ("appliance.cli.selftest:selftest", "Test the running exit end to end with a real tunnel."),
    "connect": (
        "appliance.cli.connect:connect",
        "Open a session at an exit and a tunnel to it; Ctrl-C ends both.",
    ),
    "regions": ("appliance.cli.regions:regions", "List an exit's regions, and how far away they are."),
    "node": ("appliance.cli.node:node", "Show this exit's state, drain or resume it, or join it to a fleet."),
    "fleet": ("appliance.cli.fleet:fleet", "Make several exits one fleet: init, invite, status, leave, forget."),
    "install": (
        "appliance.cli.install:install",
        "Install the appliance on this host as a service.",
    ),
    "upgrade": (
        "appliance.cli.upgrade:upgrade",
        "Upgrade the installed appliance.",
    ),
    "uninstall": ("appliance.cli.uninstall:uninstall", "Remove the appliance from this host."),
    "doctor": (
        "appliance.cli.doctor:doctor",
        "Check this host and the server; print what fixes a problem.",
    ),
    "help": ("appliance.cli.help:help_", "Print a page of the manual, or list the topics."),
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
    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # --help and --version are printed before there is a command to invoke
            Failed(f"cannot write the result: {error.strerror or error}").show()
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError) as error:
            if error.__cause__ is not None and unexpected.debugging(ctx):
                traceback.print_exception(error.__cause__)
            raise  # click ends the program
        except Exception as error:
            raise Failed(_line(error, debugging=unexpected.debugging(ctx))) from error


def _line(error: Exception, *, debugging: bool) -> str:
    """Returns what is said of an error; keeps or prints the traceback of one that is not this program's own."""
    # A folder that may not be read is as one without modules.
    if isinstance(error, ImportError) or isinstance(error.__cause__, PermissionError):
        unread = program_files.hidden()
        if unread:
            return unread
    if not isinstance(error, ApplianceError):
        on_stderr = debugging or unexpected.is_journal(sys.stderr, os.environ)
        return unexpected.describe(error, on_stderr=on_stderr)
    if debugging:
        traceback.print_exception(error)
    if isinstance(error, StoreUnavailable):
        return f"{error}: {error.__cause__}; try again, and check the disk's space"
    return str(error)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    click.echo(f"{PROGRAM} {__version__}")
    ctx.exit()


@click.group(
    cls=Root, lazy=COMMANDS, params=[unexpected.option()], context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--config",
    type=click.Path(readable=False, path_type=Path),
    metavar="FILE",
    help="The configuration file; default: $WG_APPLIANCE_CONFIG, else /etc/wg-appliance/config.toml.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@click.pass_context
def cli(ctx: click.Context, config: Path | None) -> None:
    """Run and manage a self-hosted WireGuard exit: session API, store and tunnel in one process."""
    ctx.obj = config
    if ctx.invoked_subcommand != "connect":  # which runs programs of the user's
        os.umask((os.umask(0o077) | OTHERS_WRITE) & ~OWNER)


def main() -> None:
    """Runs the console script. Never returns."""
    standard_streams.open_closed()
    cli(prog_name=PROGRAM)
