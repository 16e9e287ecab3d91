"""Records what another program keeps changing while the server runs, for a diagnosis by another process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.config import state_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

log = logging.getLogger(__name__)


def note(file: Path, contended: Mapping[str, str]) -> None:
    """Writes what is contended, by kind of repair. Only logs a failure: a diagnosis alone reads it."""
    try:
        if not contended:
            file.unlink(missing_ok=True)
            return
        state_file.write_json(file, dict(contended))
    except OSError as error:
        log.warning("cannot note in %s what other programs keep changing: %s", file, error.strerror)


def read(file: Path) -> dict[str, str]:
    """Returns what was recorded; nothing if it cannot be read."""
    try:
        return {str(kind): str(what) for kind, what in state_file.read_json(file).items()}
    except (OSError, ValueError, AttributeError):
        return {}
