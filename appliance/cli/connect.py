"""Implements `wg-appliance connect`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli import output
from appliance.cli.client_options import api_options
from appliance.cli.connect_config import STDOUT, output_config
from appliance.cli.connect_device import add_device, checked_name
from appliance.cli.connect_tunnel import keep_tunnel
from appliance.cli.os_errors import host_faults
from appliance.cli.parameters import ADDRESS, DURATION, ID, NO_RESOLVERS, REGION_CODE
from appliance.domain.client_file import MOST_RESOLVERS

if TYPE_CHECKING:
    from appliance.cli.client_options import ClientContext
    from appliance.client.connection import ConnectionOutcome

COMMAND = "appliance.cli.connect.command"  # a unique key: other code may use click's `meta` too
BEHIND = "A program to run, and its options, go behind '--': connect REGION -- COMMAND."
ADD_DEVICE = "--add-device"
ONLY_REGION = "\0"  # in the place of REGION, where none is given: no argument of a process has a NUL
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
            rest = super().parse_args(ctx, self._with_region(ctx, args))
        except click.NoSuchOption as error:
            if error.option_name.startswith("--") and not self._names_program(ctx, args, error.option_name):
                raise
            raise click.UsageError(f"{error.format_message()} {BEHIND}", ctx) from error  # a short or program's option
        extra = ctx.args
        if ctx.params.get("device_file") is not None and ctx.params.get("add_device") is None:
            extra = [str(ctx.params["device_file"]), *extra]
        if extra and not ctx.resilient_parsing:
            ctx.fail(f"Got unexpected extra arguments ({' '.join(extra)}). {BEHIND}")
        return rest

    def _with_region(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Returns the arguments, with one in REGION's place where what follows --add-device is the FILE."""
        places = [place for place, word in enumerate(args) if word.partition("=")[0] == ADD_DEVICE]
        if places and not ctx.resilient_parsing and not self._names(ctx, args[: places[0]], "region"):
            return [ONLY_REGION, *args]
        return list(args)

    def _names_program(self, ctx: click.Context, args: list[str], option: str) -> bool:
        """Tells whether more than a REGION precedes the option."""
        place = [word.partition("=")[0] for word in args].index(option)
        return self._names(ctx, args[:place], "device_file")

    def _names(self, ctx: click.Context, args: list[str], argument: str) -> bool:
        """Tells whether these have a value for the argument. Empties the list."""
        with suppress(click.UsageError):  # the last is the value of an option
            return isinstance(self.make_parser(ctx).parse_args(args)[0].get(argument), str)
        return False

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


class OptionalRegion(click.ParamType):  # type: ignore[type-arg]  # no generic class before click 8.4
    """Accepts a region's code, or what is in its place."""

    name = "region"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str | None:
        return None if value == ONLY_REGION else REGION_CODE.convert(value, param, ctx)


class Resolver(click.ParamType):  # type: ignore[type-arg]  # no generic class before click 8.4
    """Accepts an address, or "none"."""

    name = "address"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value if value == NO_RESOLVERS else ADDRESS.convert(value, param, ctx)


@click.command(cls=WithCommand, epilog=EPILOG, context_settings={"allow_extra_args": True})  # for its own error message
@click.argument("region", type=OptionalRegion(), required=False)
@click.argument("device_file", type=click.Path(path_type=Path), metavar="[FILE]", required=False)
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
@click.option(
    ADD_DEVICE,
    metavar="NAME",
    help="Add a device to the account, and write its file, which stays good, to FILE or to stdout; --qr draws it.",
)
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
    --add-device, --usage, --status and --end do not.
    """
    command = ctx.meta.get(COMMAND)  # `instead`: the options that do something other than make a tunnel
    _refuse_contradictions(instead, region, command, resolvers)
    with host_faults("cannot connect"):
        if instead["usage"]:
            _show_usage(exit_, as_json)
        elif instead["status_id"]:
            _show(exit_, "GET", f"/v1/sessions/{_quoted(instead['status_id'])}", as_json)
        elif instead["end_id"]:
            _show(exit_, "DELETE", f"/v1/sessions/{_quoted(instead['end_id'])}", as_json)
        elif instead["add_device"] is not None:
            name, path, as_qr = checked_name(instead["add_device"]), instead["device_file"], instead["qr"]
            _report(ctx, add_device(exit_, region, name, _chosen(resolvers), path, as_qr=as_qr, as_json=as_json))
        elif instead["qr"] or instead["file"]:
            _report(ctx, output_config(exit_, region, _chosen(resolvers), instead["file"], as_json))
        else:
            _report(ctx, keep_tunnel(exit_, region, _chosen(resolvers), every_s, command, as_json))


def _refuse_contradictions(
    instead: dict[str, Any], region: str | None, command: object, resolvers: tuple[str, ...]
) -> None:
    names = {"file": "--config-only", "qr": "--qr", "usage": "--usage", "status_id": "--status", "end_id": "--end"}
    names["device_file"] = "FILE"
    asked = [names[name] for name in names if instead[name]] + (["-- COMMAND"] if command else [])
    if instead["add_device"] is not None and asked != ["--qr", "FILE"]:
        asked = [ADD_DEVICE, *(asked if asked not in (["--qr"], ["FILE"]) else [])]
    if region is not None and any(instead[name] for name in ("usage", "status_id", "end_id")):
        asked.append("REGION")
    if len(asked) > 1:
        raise click.UsageError(f"{' and '.join(asked)} do not go together")
    if instead["file"] == "":  # an unset shell variable: certainly no tunnel is wanted
        raise click.UsageError("--config-only has an empty FILE")
    if NO_RESOLVERS in resolvers and len(resolvers) > 1:
        raise click.UsageError("--dns none goes with no other --dns")
    if len(resolvers) > MOST_RESOLVERS:
        raise click.UsageError(f"--dns is given {len(resolvers)} times; {MOST_RESOLVERS} resolvers at most")


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


def _show_usage(exit_: ClientContext, as_json: bool) -> None:
    import time

    from appliance.cli.usage_fields import TYPES, answered_fields

    fields = exit_.fetch("GET", "/v1/usage", TYPES)
    if as_json:
        output.write_json(fields)
    else:
        output.write_fields(answered_fields(fields, time.time()))


def _report(ctx: click.Context, outcome: ConnectionOutcome) -> None:
    from appliance.cli import Failed

    if outcome.line:
        raise Failed(outcome.line, outcome.exit_status) from outcome.cause
    ctx.exit(outcome.exit_status)
