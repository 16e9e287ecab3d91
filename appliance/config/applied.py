"""Records the settings the running server has in use, so that a diagnosis can compare them with the file."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from appliance.config.settings import by_key

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.config.settings import Settings

log = logging.getLogger(__name__)


def note(file: Path, settings: Settings) -> None:
    """Writes the settings atomically. Only logs a failure: a diagnosis alone reads them, so serving goes on."""
    new = file.with_suffix(".new")
    try:
        new.write_text(json.dumps(by_key(settings), indent=1), encoding="utf-8")
        new.replace(file)
    except OSError as error:
        log.warning("cannot note the settings in use in %s: %s", file, error.strerror)


def read(file: Path) -> dict[str, str] | None:
    """Returns the recorded settings; None if there are none."""
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return noted if isinstance(noted, dict) else None
