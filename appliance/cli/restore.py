"""Implements `wg-appliance restore`."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.os_errors import host_faults
from appliance.cli.output import remark
from appliance.config.load import config_path, read_settings
from appliance.domain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.config.load import Settings


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def restore(config_file: Path | None, file: Path) -> None:
    """Restore what `backup` saved to FILE: sessions, accounts, server key and configuration.

    Refused while the server runs. The present files are kept, and their place is printed.
    """
    from appliance.ops.backup.restore import restore_backup

    place = config_path(config_file, os.environ)
    with host_faults("cannot restore"):
        done = restore_backup(file, place, os.environ)
    made = done.manifest
    remark(f"restored {done.settings.node.state_dir}: saved {made.made_at} by wg-appliance {made.appliance}")
    if done.kept_state is not None:
        remark(f"what was there before is in {done.kept_state}")
    if done.config_written:
        remark(f"restored {place}" + (f"; the one before is {done.kept_config}" if done.kept_config else ""))
    for advice in _advice(place, done.settings):
        remark(f"note: {advice}")


def _advice(place: Path, settings: Settings) -> Iterator[str]:
    """Yields hints on settings that may belong to another host."""
    if settings.node.public_ip is not None and not _is_here(str(settings.node.public_ip)):
        yield (
            f"node.public_ip is {settings.node.public_ip}, which is no address of this host; "
            'unless it is behind a NAT, set it to "auto"'
        )
    if place.exists():
        try:
            read_settings(place, os.environ)
        except ConfigError as error:
            yield str(error)


def _is_here(address: str) -> bool:
    try:
        socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET).close()
    except OSError:
        return False
    return True
