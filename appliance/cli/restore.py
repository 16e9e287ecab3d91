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
@click.option("--as-new-node", is_flag=True, help="Of a fleet's host: as a single exit, beside the one that was saved.")
@click.pass_obj
def restore(config_file: Path | None, file: Path, as_new_node: bool) -> None:
    """Restore what `backup` saved to FILE: sessions, accounts, keys, place in a fleet and configuration.

    Refused while the server runs. The present files are kept, and their new paths are printed.
    """
    from appliance.ops.backup.restore import restore_backup

    config = config_path(config_file, os.environ)
    with host_faults("cannot restore"):
        done = restore_backup(file, config, os.environ, as_new_node=as_new_node)
    made = done.manifest
    remark(f"restored {done.settings.node.state_dir}: saved {made.made_at} by wg-appliance {made.appliance}")
    if done.kept_state is not None:
        remark(f"what was there before is in {done.kept_state}")
    if done.config_written:
        remark(f"restored {config}" + (f"; the one before is {done.kept_config}" if done.kept_config else ""))
    if done.lacks_fleet:
        folder = done.settings.node.state_dir / "fleet"
        remark(
            f"note: this backup is of a host in a fleet, and does not have its keys: put {folder} back before the "
            "server starts, or make this host a single exit: wg-appliance fleet leave"
        )
    for advice in _advice(config, done.settings):
        remark(f"note: {advice}")


def _advice(config: Path, settings: Settings) -> Iterator[str]:
    """Yields hints on settings that may belong to another host."""
    if settings.node.public_ip is not None and not _is_here(str(settings.node.public_ip)):
        yield (
            f"node.public_ip is {settings.node.public_ip}, which is no address of this host; "
            'unless it is behind a NAT, set it to "auto"'
        )
    if config.exists():
        try:
            read_settings(config, os.environ)
        except ConfigError as error:
            yield str(error)


def _is_here(address: str) -> bool:
    try:
        socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET).close()
    except OSError:
        return False
    return True
