"""Tells what a running server has noted of its fleet, to commands that import nothing of fleets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.config import state_file

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.domain.clock import Moment

OLD_MS = 10_000  # what is older is no word of a server that runs


def is_recent(boot_id: str, boot_ms: int, now: Moment) -> bool:
    """Tells whether a server that runs now has noted what is of this moment."""
    return boot_id == now.boot_id and 0 <= now.boot_ms - boot_ms < OLD_MS


def is_cut_off(file: Path, now: Moment, hub: str) -> bool:
    """Tells whether the server that runs now reaches no hub, or does not hear the one of this name.

    False where none has noted that. See fleet.status.
    """
    try:
        noted = state_file.read_json(file)
        status = noted["status"]
        silent = any(each["name"] == hub and not each["alive"] for each in status["nodes"])
        return is_recent(noted["boot_id"], noted["boot_ms"], now) and (silent or status["cut_off_since"] is not None)
    except (OSError, ValueError, LookupError, TypeError):
        return False
