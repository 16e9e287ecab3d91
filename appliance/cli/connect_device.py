"""Adds a device for `wg-appliance connect --add-device`, and hands over its file, instead of making a tunnel."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from appliance.cli import connect_config, output
from appliance.cli.client_options import connection_options
from appliance.domain import device_name
from appliance.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.cli.client_options import ClientContext
    from appliance.client.api.responses import AddedDevice
    from appliance.client.connection import ConnectionOutcome


def checked_name(name: str) -> str:
    """Returns the device's name. Raises UsageError if it cannot be one."""
    if device_name.SEPARATOR in name:
        raise click.UsageError(
            f"--add-device: give the device's name alone, without {device_name.SEPARATOR}: the account is the token's"
        )
    try:
        return device_name.checked(name)
    except InvalidRequest as error:
        raise click.UsageError(f"--add-device: {error}") from error


def add_device(
    exit_: ClientContext,
    region: str | None,
    name: str,
    resolvers: Sequence[str] | None,
    path: Path | None,
    *,
    as_qr: bool,
    as_json: bool,
) -> ConnectionOutcome:
    """Adds a device to the token's account and outputs its file: to `path`, to stdout, or as a QR code.

    Its private key is made here and sent nowhere. Raises HostError if `path` exists, and click.UsageError if REGION is
    missing and there are several.
    """
    from appliance.client.api.sessions import Stopped
    from appliance.client.connection import ConnectionOutcome, request, session_config
    from appliance.client.tunnel.wg_config import PUBLIC_RESOLVER, render
    from appliance.network.wireguard import keys

    _check(path, draws=as_qr and not as_json)
    options = connection_options(exit_.sessions(), region, resolvers, 0)
    if as_qr:
        options = replace(options, ipv6=True)  # whether this machine has IPv6 does not matter for a phone
    key, devices = keys.generate_private_key(), exit_.devices()
    try:
        added = devices.add({"name": name, **request(options, key)})
    except Stopped as error:
        return ConnectionOutcome(error.exit_status, str(error), cause=error)
    # A phone's own resolver is in its network, which it cannot reach through the tunnel.
    default = (PUBLIC_RESOLVER,) if as_qr else ()
    with connect_config.undone_on_failure(lambda: devices.remove(added.id)):
        config = render(session_config(added.wg_config, options.ipv6, options.resolvers, default), key)
        if path is not None:
            connect_config.write_config(exit_, config, path)
        connect_config.show_config(_facts(added, name, options.region), config, as_qr=as_qr, path=path, as_json=as_json)
    _echo(added, name, path, region)
    return ConnectionOutcome(0)


def _echo(added: AddedDevice, name: str, path: Path | None, region: str | None) -> None:
    if path is not None:
        meant = connect_config.region_meant(region, path, f"{path} --add-device NAME")
        output.remark(f"written: {path}{meant}")
    output.remark(f"device {name} added, tier {added.tier}: its file stays good until the device is removed")


def _check(path: Path | None, *, draws: bool) -> None:
    """Checks before a device is made that its file can be handed over. Raises HostError."""
    from appliance.client.ui import qr

    if path is not None:
        connect_config.check_path(path)
    if draws:
        qr.check(sys.stdout.encoding, "--json, or a FILE")


def _facts(added: AddedDevice, name: str, region: str) -> dict[str, str]:
    made = {"id": added.id, "name": name, "region": region, "public_ip": added.public_ip}
    return made | {"created_at": added.created_at, "tier": added.tier}
