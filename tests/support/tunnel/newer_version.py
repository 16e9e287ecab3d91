"""A version of this program that is newer, as an upgrade brings it: it takes the store to a schema of its own."""

from __future__ import annotations

import shlex
import shutil
import sys
from typing import TYPE_CHECKING

from tests.support.tunnel.appliance_process import PROJECT

if TYPE_CHECKING:
    from pathlib import Path


def newer_version(folder: Path) -> Path:
    """Returns its command, which is made in `folder`."""
    shutil.copytree(PROJECT / "appliance", folder / "appliance", ignore=shutil.ignore_patterns("__pycache__"))
    migrations = folder / "appliance" / "store" / "migrations"
    number = len(list(migrations.glob("*.sql"))) + 1
    (migrations / f"{number:04d}_added.sql").write_text("CREATE TABLE added (n INTEGER) STRICT;\n", encoding="utf-8")
    command = folder / "wg-appliance"
    words = ["exec", "env", f"PYTHONPATH={folder}", sys.executable, "-P", "-m", "appliance"]
    command.write_text(f'#!/bin/sh\n{shlex.join(words)} "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return command
