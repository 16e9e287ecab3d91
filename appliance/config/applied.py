"""Records the settings the running server has in use, so that a diagnosis can compare them with the file."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.config import state_file
from appliance.config.settings import by_key

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.config.settings import Settings

log = logging.getLogger(__name__)


def note(file: Path, settings: Settings) -> None:
    """Writes the settings atomically. Only logs a failure: a diagnosis alone reads them, so serving goes on."""
    try:
        state_file.write_json(file, by_key(settings))
    except OSError as error:
        log.warning("cannot note the settings in use in %s: %s", file, error.strerror)


def read(file: Path) -> dict[str, str] | None:
    """Returns the recorded settings; None if there are none."""
    try:
        noted = state_file.read_json(file)
    except (FileNotFoundError, state_file.Unfit, ValueError):
        return None
    return noted if isinstance(noted, dict) else None
