"""Programs of this machine that end by themselves, asked for what they print."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM_S = 30.0


def run(*command: str, environ: Mapping[str, str], text: str = "") -> str:
    """`text`: its input. Raises HostError."""
    try:
        done = subprocess.run(  # noqa: S603 (names and addresses of ours)
            command,
            input=text,
            capture_output=True,
            text=True,
            env=dict(environ),
            timeout=PROGRAM_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise HostError(f"{' '.join(command)} failed: {' '.join(done.stderr.split())}")
    return done.stdout
