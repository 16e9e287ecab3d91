"""The settings that the running server has taken over, written down for whoever asks what the file has more."""

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
    """Whole or not at all. Nothing but a diagnosis reads it, so that a full disk is no reason not to serve."""
    new = file.with_suffix(".new")
    try:
        new.write_text(json.dumps(by_key(settings), indent=1), encoding="utf-8")
        new.replace(file)
    except OSError as error:
        log.warning("cannot note the settings in use in %s: %s", file, error.strerror)


def read(file: Path) -> dict[str, str] | None:
    """What was noted; None where nothing was."""
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return dict(noted)
