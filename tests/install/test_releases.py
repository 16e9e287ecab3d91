"""The one file on other releases than the one it is built on."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import debian

if TYPE_CHECKING:
    from pathlib import Path


def test_the_next_debian(program: Path, tmp_path: Path) -> None:
    """On a Debian 13 without Python it starts, and every part of it loads: it makes a store, and a key, and a token."""
    debian.unpack(debian.NEXT, tmp_path)
    shutil.copy(program, tmp_path / "root" / "wg-appliance")

    def run(*arguments: str) -> str:
        command = ["chroot", str(tmp_path), "/root/wg-appliance", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert not (tmp_path / "usr/bin/python3").exists()
    assert program.name.split("-")[2] in run("--version")
    run("init")
    assert run("token", "create", "--account", "alice").strip()
