"""Implements `wg-appliance connect`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli import output
from appliance.cli.client_options import api_options
from appliance.cli.os_errors import host_faults
from appliance.cli.parameters import ADDRESS, DURATION, ID, REGION_CODE
from appliance.client.terminal import printable
from appliance.config.value_types import REGION
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.cli.client_options import ClientContext
    from appliance.client.api.responses import OpenedSession, Over
    from appliance.client.api.sessions import SessionsClient
    from appliance.client.connection import ConnectionOptions, ConnectionOutcome
    from appliance.client.run_records import RunClaim
    from appliance.client.signals import Interruption
    from appliance.client.ui.screen import Screen

COMMAND = "appliance.cli.connect.command"  # a unique key: other code may use click's `meta` too
BEHIND = "A program to run, and its options, go behind '--': connect REGION -- COMMAND."
STDOUT = "-"
NO_RESOLVERS = "none"
EPILOG = (
    "Exit status: 0 done, 1 failed, 2 usage, 3 quota exceeded, 4 ended by the server. With COMMAND: its own; 126 or "
    "127 if it cannot be run, 128 plus the signal's number if a signal ended it."
)


class WithCommand(click.Command):
    """Takes what follows `--` as a program and its arguments, not as options of the command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            place = args.index("--")
            ctx.meta[COMMAND] = args[place + 1 :]
            if not ctx.meta[COMMAND] and not ctx.resilient_parsing:  # shell completion parses incomplete lines
                ctx.fail("Missing COMMAND after '--'.")
            args = args[:place]
        try:
            rest = super().parse_args(ctx, list(args))  # a copy: it empties its list
        except click.NoSuchOption as error:
            if error.option_name.startswith("--") and not self._names_program(ctx, args, error.option_name):
                raise
            raise click.UsageError(f"{error.format_message()} {BEHIND}", ctx) from error  # a short or program's option
        if ctx.args and not ctx.resilient_parsing:
            ctx.fail(f"Got unexpected extra arguments ({' '.join(ctx.args)}). {BEHIND}")
        return rest

    def _names_program(self, ctx: click.Context, args: list[str], option: str) -> bool:
        """Tells whether more than a REGION precedes the option."""
        place = [word.partition("=")[0] for word in args].index(option)
        with suppress(click.UsageError):  # it is the value of an option
            return bool(self.make_parser(ctx).parse_args(args[:place])[1])
        return False

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


class Resolver(click.ParamType):  # type: ignore[type-arg]  # no generic class before click 8.4
    """Accepts an address, or "none"."""

    name = "address"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value if value == NO_RESOLVERS else ADDRESS.convert(value, param, ctx)


@click.command(cls=WithCommand, epilog=EPILOG, context_settings={"allow_extra_args": True})  # for its own error message
@click.argument("region", type=REGION_CODE, required=False)
@api_options
@click.option(
    "--dns",
    "resolvers",
    type=Resolver(),
    multiple=True,
    metavar="ADDR",
    help="Use this resolver instead of the operator's; 'none': keep this machine's own.",
)
@click.option(
    "--every",
    "every_s",
    type=DURATION,
    default="10s",
    show_default=True,
    metavar="TIME",
    help="Between two status updates.",
)
@click.option(
    "--config-only",
    "file",
    is_flag=False,
    flag_value=STDOUT,
    metavar="[FILE]",
    help="Write the wg-quick file, to stdout without FILE, and leave the session open.",
)
@click.option("--qr", is_flag=True, help="Show the configuration as a QR code for a phone, and leave the session open.")
@click.option("--usage", is_flag=True, help="Show what the account has used of its windows.")
@click.option("--status", "status_id", type=ID, metavar="ID", help="Show a session of the account.")
@click.option("--end", "end_id", type=ID, metavar="ID", help="End a session of the account.")
@output.json_option
@click.pass_context
def connect(
    ctx: click.Context,
    /,
    exit_: ClientContext,
    region: str | None,
    resolvers: tuple[str, ...],
    every_s: int,
    as_json: bool,
    **instead: Any,
) -> None:
    """Open a session at an exit and a tunnel to it, and show their status. Ctrl-C ends both.

    With -- COMMAND only that program's traffic goes into the tunnel. Both need root (sudo); --config-only, --qr,
    --usage, --status and --end do not.
    """
    command = ctx.meta.get(COMMAND)  # `instead`: the options that do something other than make a tunnel
    _refuse_contradictions(instead, region, command, resolvers)
    with host_faults("cannot connect"):
        if instead["usage"]:
            _show(exit_, "GET", "/v1/usage", as_json)
        elif instead["status_id"]:
            _show(exit_, "GET", f"/v1/sessions/{_quoted(instead['status_id'])}", as_json)
        elif instead["end_id"]:
            _show(exit_, "DELETE", f"/v1/sessions/{_quoted(instead['end_id'])}", as_json)
        elif instead["qr"] or instead["file"]:
            _output_config(exit_, region, _chosen(resolvers), instead["file"], as_json)
        else:
            outcome = _stay(exit_, region, _chosen(resolvers), every_s, command, as_json)
            _report(ctx, outcome)


def _refuse_contradictions(
    instead: dict[str, Any], region: str | None, command: object, resolvers: tuple[str, ...]
) -> None:
    names = {"file": "--config-only", "qr": "--qr", "usage": "--usage", "status_id": "--status", "end_id": "--end"}
    asked = [names[name] for name, value in instead.items() if value] + (["-- COMMAND"] if command else [])
    if region is not None and any(instead[name] for name in ("usage", "status_id", "end_id")):
        asked.append("REGION")
    if len(asked) > 1:
        raise click.UsageError(f"{' and '.join(asked)} do not go together")
    if instead["file"] == "":  # an unset shell variable: certainly no tunnel is wanted
        raise click.UsageError("--config-only has an empty FILE")
    if NO_RESOLVERS in resolvers and len(resolvers) > 1:
        raise click.UsageError("--dns none goes with no other --dns")


def _chosen(resolvers: tuple[str, ...]) -> tuple[str, ...] | None:
    """Returns the chosen resolvers; None if no --dns was given."""
    return None if not resolvers else () if resolvers == (NO_RESOLVERS,) else resolvers


def _quoted(session_id: str) -> str:
    from urllib.parse import quote

    return quote(session_id, safe="")


def _show(exit_: ClientContext, method: str, path: str, as_json: bool) -> None:
    fields = exit_.fetch(method, path)
    if as_json:
        output.write_json(fields)
    else:
        output.write_fields(list(fields.items()))


def _report(ctx: click.Context, outcome: ConnectionOutcome) -> None:
    from appliance.cli import Failed

    if outcome.line:
        raise Failed(outcome.line, outcome.exit_status)
    ctx.exit(outcome.exit_status)


def _options(
    sessions: SessionsClient, region: str | None, resolvers: Sequence[str] | None, every_s: int
) -> ConnectionOptions:
    from appliance.client.connection import ConnectionOptions
    from appliance.client.tunnel.ipv6 import ipv6_enabled

    return ConnectionOptions(region or _only(sessions.regions()), ipv6_enabled(), resolvers, every_s)


def _only(regions: list[str]) -> str:
    if not regions:
        raise HostError("no region has an active exit; try again later")
    if len(regions) > 1:
        raise click.UsageError(f"there is more than one region, name one: {printable(', '.join(regions))}")
    return regions[0]


def _output_config(
    exit_: ClientContext, region: str | None, resolvers: Sequence[str] | None, file: str | None, as_json: bool
) -> None:
    """Outputs the config instead of making a tunnel: to a file, to stdout, or as a QR code for a phone."""
    from appliance.client.api.sessions import Stopped
    from appliance.client.connection import ConnectionOutcome, request, whole_config
    from appliance.client.tunnel.wg_config import PUBLIC_RESOLVER
    from appliance.client.ui import qr
    from appliance.network.wireguard import keys

    path = None if file in (None, STDOUT) else Path(str(file))
    if path is not None:
        _check_path(path)
    if not file and not as_json:
        qr.check(sys.stdout.encoding)
    sessions = exit_.sessions()
    options = _options(sessions, region, resolvers, 0)
    if not file:
        options = replace(options, ipv6=True)  # whether this machine has IPv6 does not matter for a phone
    key = keys.generate_private_key()
    try:
        opened = sessions.open(request(options, key))
    except Stopped as error:
        _report(click.get_current_context(), ConnectionOutcome(error.exit_status, str(error)))
        return
    # A phone's own resolver is in its network, which it cannot reach through the tunnel.
    config = whole_config(opened.wg_config, key, options.resolvers, () if file else (PUBLIC_RESOLVER,))
    if path is not None:
        _write_config(exit_, sessions, opened, config, path)
    _show_config(opened, config, file, path, as_json)
    if path is not None:
        output.remark(f"written: {path}{_region_meant(region, path)}")
    output.remark(
        f"session {opened.id} is open; it ends some minutes after its last use, or by: connect --end {opened.id}"
    )


def _write_config(
    exit_: ClientContext, sessions: SessionsClient, opened: OpenedSession, config: str, path: Path
) -> None:
    """Writes the config as the user who called sudo. Closes the session if that fails."""
    from appliance.client.credentials import write_private

    try:
        with exit_.invoker.acting():
            write_private(path, config, replace=False)
    except OSError:
        sessions.close(opened.id)
        raise


def _show_config(opened: OpenedSession, config: str, file: str | None, path: Path | None, as_json: bool) -> None:
    """Shows the session as JSON, or the config: as a QR code without `file`, as text without `path`."""
    from appliance.client.ui import qr

    if as_json:
        shown = {"wg_config": config} if path is None else {"file": str(path)}
        output.write_json({"id": opened.id, "public_ip": opened.public_ip, "expires_at": opened.expires_at, **shown})
    elif not file:
        output.write_as_it_is(qr.draw(config, colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))
    elif path is None:
        output.write(config.rstrip("\n"))


def _region_meant(region: str | None, path: Path) -> str:
    """Returns a hint if FILE looks like a region: what follows --config-only is always a FILE."""
    try:
        REGION.parse(str(path))
    except ValueError:
        return ""
    return "" if region else f"; if that is the region, it comes before: connect {path} --config-only"


def _check_path(path: Path) -> None:
    """Checks FILE before a session is opened. Raises HostError if it exists, or its directory does not."""
    if os.path.lexists(path):
        raise HostError(f"{path} is there already; name another, or remove it")
    if not path.parent.is_dir():
        raise HostError(f"{path.parent} is no directory")


def _stay(
    exit_: ClientContext,
    region: str | None,
    resolvers: Sequence[str] | None,
    every_s: int,
    command: Sequence[str] | None,
    as_json: bool,
) -> ConnectionOutcome:
    """Makes a tunnel and keeps it until a signal, the command or the server ends it."""
    from appliance.client import cleanup, run_records
    from appliance.client.api import responses
    from appliance.client.connection import ConnectionOutcome
    from appliance.client.signals import InterruptedBySignal, Interruption
    from appliance.client.ui.screen import screen_for

    if os.geteuid() != 0:
        raise HostError("connect makes a tunnel: run it as root (sudo); --config-only and --qr do not need that")
    interruption = Interruption()
    screen = screen_for(as_json=as_json, command=command is not None)
    sessions = exit_.sessions(interruption.pause, screen.remark)
    with interruption.awaited():
        try:
            cleanup.clear(exit_.api, exit_.token, exit_.environment, screen.remark)
            with run_records.claimed("machine" if command is None else "command") as claim:
                options = _options(sessions, region, resolvers, every_s)
                if command is None:
                    return _machine(exit_, sessions, options, claim, screen, interruption)
                return _command(exit_, sessions, options, claim, screen, interruption, command)
        except InterruptedBySignal as error:
            return ConnectionOutcome(responses.FAILED, f"{error} before the tunnel was up")


def _machine(
    exit_: ClientContext,
    sessions: SessionsClient,
    options: ConnectionOptions,
    claim: RunClaim,
    screen: Screen,
    interruption: Interruption,
) -> ConnectionOutcome:
    from appliance.client.connection import ClientConnection, run
    from appliance.client.tunnel.full_tunnel import FullTunnel
    from appliance.network.wireguard import keys

    tunnel = FullTunnel(claim.record.interface, exit_.environment, screen.remark)
    connection = ClientConnection(options, keys.generate_private_key(), sessions, exit_.dialer, tunnel, claim)

    def stay(opened: OpenedSession) -> Over:
        screen.connected(opened, options.region, claim.record.interface, "Ctrl-C ends it")
        return connection.watch(screen, interruption)

    return run(connection, screen, stay)


def _command(
    exit_: ClientContext,
    sessions: SessionsClient,
    options: ConnectionOptions,
    claim: RunClaim,
    screen: Screen,
    interruption: Interruption,
    command: Sequence[str],
) -> ConnectionOutcome:
    from appliance.client.command import run_command
    from appliance.client.connection import ClientConnection, run
    from appliance.client.tunnel.namespace_tunnel import NamespaceTunnel
    from appliance.network.wireguard import keys

    key = keys.generate_private_key()
    tunnel = NamespaceTunnel(claim.record.interface, key, claim.resolv_conf)
    connection = ClientConnection(options, key, sessions, exit_.dialer, tunnel, claim)

    def stay(opened: OpenedSession) -> ConnectionOutcome:
        screen.connected(opened, options.region, claim.record.interface, f"for {command[0]} alone")
        return run_command(
            lambda: tunnel.start(command, exit_.invoker, exit_.environment),
            lambda exits, goes_on: connection.watch(screen, exits, goes_on),
            interruption,
        )

    return run(connection, screen, stay)
