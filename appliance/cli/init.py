"""Implements `wg-appliance init`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.os_errors import host_faults
from appliance.cli.output import remark
from appliance.config.load import config_path, read_settings
from appliance.store.file_owner import become_owner

if TYPE_CHECKING:
    from appliance.store.state_dir import StateDir


@click.command()
@click.pass_obj
def init(config_file: Path | None) -> None:
    """Write a commented config, create the state directory, store and server key.

    What exists already is left as it is.
    """
    from appliance.store.state_dir import StateDir

    file = config_path(config_file, os.environ)
    with host_faults("cannot write the configuration"):
        _say(file, made=_write_config(file))
    state = StateDir(read_settings(file, os.environ).node.state_dir)
    _say(state.path, made=state.create())
    with host_faults("cannot set up the state directory"):
        _fill(state)


def _write_config(file: Path) -> bool:
    from appliance.config.template import default_text

    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(default_text())
    except FileExistsError:
        return False
    return True


def _fill(state: StateDir) -> None:
    from appliance.store.state_dir import StateDir

    def rehearse() -> None:
        with tempfile.TemporaryDirectory() as folder:
            elsewhere = StateDir(Path(folder))
            _open_store(elsewhere)
            elsewhere.private_key()

    become_owner(state.path, rehearse)
    had_store = state.store.exists()
    _open_store(state)
    _say(state.store, made=not had_store)
    had_key = state.has_key
    state.private_key()
    _say(state.key, made=not had_key)


def _open_store(state: StateDir) -> None:
    import asyncio

    from appliance.store.database import Store

    async def open_and_close() -> None:
        await (await Store.open(state.store, served=state.is_served)).close()

    state.create_store()
    asyncio.run(open_and_close())


def _say(path: Path, *, made: bool) -> None:
    remark(f"created {path}" if made else f"exists: {path}")
