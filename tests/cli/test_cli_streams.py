"""Standard streams that are closed or full, and odd umasks: one line, and no result that is lost without a word."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.cli.command_line import CommandLine

pytestmark = pytest.mark.black_box


def shell(wga: CommandLine, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the program as "$@" of a shell's script."""
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "appliance", "--config", str(wga.config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("arguments", ["account list", "doctor --json", "token create --account ada", "--help"])
@pytest.mark.parametrize("stdout", [">&-", ">/dev/full"])
def test_a_result_that_cannot_be_written(used: CommandLine, stdout: str, arguments: str) -> None:
    """The command fails, and says so in its last line."""
    done = shell(used, f'"$@" {stdout}', *arguments.split())
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("wg-appliance: error: cannot write the result: ")
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_without_any_stream(used: CommandLine) -> None:
    """The store is not where the program's own output goes, and the work is done."""
    done = shell(used, '"$@" <&- >&- 2>&-; echo $? >&2', "node", "drain")
    assert done.stderr == "0\n"
    assert "drained" in shell(used, '"$@"', "node", "status").stdout


@pytest.mark.parametrize("umask", ["000", "777"])
def test_the_umask(used: CommandLine, tmp_path: Path, umask: str) -> None:
    """Whatever the caller's, the owner can use what is made, and others cannot write to it."""
    used.config.unlink()
    used.config.write_text(f'[node]\nstate_dir = "{tmp_path}/new/state"\n', encoding="utf-8")
    assert shell(used, f'umask {umask}; "$@"', "init").returncode == 0
    assert shell(used, f'umask {umask}; "$@"', "backup", str(tmp_path / "new" / "x.tar")).returncode == 0
    for path in (tmp_path / "new").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o600 == 0o600, path
        assert not mode & 0o022, path
    assert os.access(tmp_path / "new", os.W_OK)
