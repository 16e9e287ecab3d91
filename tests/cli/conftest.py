from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.cli.command_line import CommandLine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bare(tmp_path: Path) -> CommandLine:
    """A configuration, and no state yet."""
    return CommandLine(tmp_path)


@pytest.fixture
def wga(bare: CommandLine) -> CommandLine:
    """A configuration and an initialised state directory; no server is running."""
    bare.do("init")
    return bare


@pytest.fixture
def used(wga: CommandLine) -> CommandLine:
    """A store with an account and two sessions, one of them live."""
    wga.do("account", "create", "ada")
    wga.open_session("ada", 2)
    wga.open_session("ada", 3)
    wga.do("session", "terminate", f"ses_{3:024x}")
    return wga


@pytest.fixture
def file(used: CommandLine, tmp_path: Path) -> Path:
    """A backup of it."""
    path = tmp_path / "backup.tar"
    used.do("backup", str(path))
    return path
