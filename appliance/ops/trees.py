"""Removes a folder that another user fills: Python's own functions fail at deep nesting and wait for a FIFO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network import programs

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 600.0


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with its content, if there is one. Raises ProgramFailed.

    rm(1) follows no links, also if a folder is replaced by one meanwhile.
    """
    programs.run("rm", "-rf", "--", str(path), timeout_s=TIMEOUT_S)
