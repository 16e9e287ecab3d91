"""Outputs a session's configuration for `wg-appliance connect`, instead of making a tunnel."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli import output
from appliance.cli.client_options import connection_options
from appliance.config.value_types import REGION
from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from appliance.cli.client_options import ClientContext
    from appliance.client.api.responses import OpenedSession
    from appliance.client.connection import ConnectionOutcome

STDOUT = "-"


def output_config(
    exit_: ClientContext, region: str | None, resolvers: Sequence[str] | None, file: str | None, as_json: bool
) -> ConnectionOutcome:
    """Opens a session and outputs its config: to a file, to stdout, or as a QR code for a phone.

    Raises HostError if FILE exists, and click.UsageError if REGION is missing and there are several.
    """
    from appliance.client.api.sessions import Stopped
    from appliance.client.connection import ConnectionOutcome, request, session_config
    from appliance.client.tunnel.wg_config import PUBLIC_RESOLVER, render
    from appliance.client.ui import qr
    from appliance.network.wireguard import keys

    path = None if file in (None, STDOUT) else Path(str(file))
    if path is not None:
        check_path(path)
    if not file and not as_json:
        qr.check(sys.stdout.encoding)
    sessions = exit_.sessions()
    options = connection_options(sessions, region, resolvers, 0)
    if not file:
        options = replace(options, ipv6=True)  # whether this machine has IPv6 does not matter for a phone
    key = keys.generate_private_key()
    try:
        opened = sessions.open(request(options, key))
    except Stopped as error:
        return ConnectionOutcome(error.exit_status, str(error), cause=error)
    # A phone's own resolver is in its network, which it cannot reach through the tunnel.
    default = () if file else (PUBLIC_RESOLVER,)
    with undone_on_failure(lambda: sessions.close(opened.id)):
        config = render(session_config(opened.wg_config, options.ipv6, options.resolvers, default), key)
        if path is not None:
            write_config(exit_, config, path)
        show_config(_facts(opened), config, as_qr=not file, path=path, as_json=as_json)
    if path is not None:
        output.remark(f"written: {path}{region_meant(region, path, f'{path} --config-only')}")
    output.remark(
        f"session {opened.id} is open; it ends some minutes after its last use, or by: connect --end {opened.id}"
    )
    return ConnectionOutcome(0)


@contextmanager
def undone_on_failure(undo: Callable[[], object]) -> Iterator[None]:
    """Takes back what was opened or made if its config cannot be handed over."""
    try:
        yield
    except (HostError, OSError, KeyboardInterrupt):
        with suppress(HostError):  # what failed is what the user needs to know
            undo()
        raise


def write_config(exit_: ClientContext, config: str, path: Path) -> None:
    """Writes the config as the user who called sudo."""
    from appliance.client.credentials import write_private

    with exit_.invoker.acting():
        write_private(path, config, replace=False)


def show_config(facts: Mapping[str, str], config: str, *, as_qr: bool, path: Path | None, as_json: bool) -> None:
    """Shows `facts` as JSON, or the config: as a QR code, or as text where it is in no file."""
    if as_json:
        output.write_json({**facts, **({"wg_config": config} if path is None else {"file": str(path)})})
    elif as_qr:
        output.write_qr(config)
    elif path is None:
        output.write(config.rstrip("\n"))


def _facts(opened: OpenedSession) -> Mapping[str, str]:
    return {"id": opened.id, "public_ip": opened.public_ip, "expires_at": opened.expires_at}


def region_meant(region: str | None, path: Path, instead: str) -> str:
    """Returns a hint if FILE looks like a region, whose place is elsewhere. `instead`: how to say that."""
    try:
        REGION.parse(str(path))
    except ValueError:
        return ""
    return "" if region else f"; if that is the region, it comes before: connect {instead}"


def check_path(path: Path) -> None:
    """Checks FILE before a session is opened. Raises HostError if it exists, or its directory does not."""
    if os.path.lexists(path):
        raise HostError(f"{path} is there already; name another, or remove it")
    if not path.parent.is_dir():
        raise HostError(f"{path.parent} is no directory")
