"""What is in backups and in the folders that they are of."""

from __future__ import annotations

import io
import os
import sqlite3
import tarfile
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from appliance.store.migration import migrations

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cli.command_line import CommandLine

NEWEST = migrations()[-1][0]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


def rows(store: Path) -> list[str]:
    with closing(sqlite3.connect(store)) as db:
        return list(db.iterdump())


def content(folder: Path) -> dict[str, bytes]:
    """Every file under a folder. The lock of the server says nothing, and is made by whoever asks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "serve.lock"
    }


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]  # all files


def write_members(file: Path, contents: dict[str, bytes]) -> None:
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in contents.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))


def refused(wga: CommandLine, *arguments: str) -> str:
    """What the one line says."""
    done = wga(*arguments)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1), done
    assert done.err.startswith("wg-appliance: error: ")
    return done.err
