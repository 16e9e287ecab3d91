"""The systemd unit that makes daily backups."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "systemd" / "wg-appliance-backup.service"
EXPOSURE = 1.7


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_backup_unit_is_confined_like_the_appliance() -> None:
    """The service is confined like the appliance itself, or better, as systemd-analyze rates it."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE * 10:.0f}", SERVICE],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
