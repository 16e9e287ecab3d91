"""Implements `wg-appliance backup`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from appliance.cli.os_errors import host_faults
from appliance.cli.output import remark, size
from appliance.config.load import config_path, read_settings


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--keep", type=click.IntRange(min=1), metavar="N", help="In a folder: remove all but the newest N backups."
)
@click.pass_obj
def backup(config_file: Path | None, file: Path, keep: int | None) -> None:
    """Save sessions, accounts, keys, place in a fleet and configuration to FILE, whether or not the server runs.

    An earlier backup at FILE is replaced once the new one is complete. If FILE is a folder, the backup there is
    named by the time. It contains the keys with which anyone can impersonate this exit: keep it secret.
    """
    if keep is not None and not file.is_dir():
        raise click.UsageError(f"--keep goes with a folder, and {file} is none")
    from appliance.ops.backup.create import dated, drop_oldest, write_backup
    from appliance.store.state_dir import StateDir

    settings = read_settings(config_file, os.environ)
    target = dated(file) if file.is_dir() else file
    state = StateDir(settings.node.state_dir)
    with host_faults("cannot make a backup of"):
        write_backup(state, config_path(config_file, os.environ), target)
    remark(f"saved {target} ({size(target.stat().st_size)})")
    if keep is not None:
        with host_faults("cannot remove"):
            for gone in drop_oldest(state, file, keep, target):
                remark(f"removed {gone}")
