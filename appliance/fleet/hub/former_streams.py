"""Says which folders of streams are of hubs or fleets that are no more. Pure, but for the look into their folder.

Each may be two gigabytes, and is never used again. Nothing is lost with it: JetStream never holds the only copy.
Where the unit runs the server, they are its user's, and the unit removes them as the server ends: all but the one that
a note of the appliance names.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NOTE = "streams.env"  # wg-appliance-hub.service
NONE = "none"
_STREAMS = re.compile(r'^\s*store_dir: "([^"\\]+)"$', re.MULTILINE)
_OF_A_FLEET = re.compile(r"flt_[0-9a-z]+(-[0-9]+(-alone)?)?")


def in_use(config: str | None, streams: Path) -> str | None:
    """Returns the name of the folder in `streams` that a server with this configuration uses; None: it has none."""
    found = None if config is None else _STREAMS.search(config)
    if found is None or PurePath(found[1]).parent != streams or not _OF_A_FLEET.fullmatch(PurePath(found[1]).name):
        return None
    return PurePath(found[1]).name


def former(config: str | None, streams: Path) -> list[Path]:
    """Returns the folders that it does not use; none where it uses none. Raises OSError."""
    used = in_use(config, streams)
    if used is None or not streams.is_dir():
        return []
    return [each for each in sorted(streams.iterdir()) if each.name != used and _is_of_a_fleet(each)]


def note(name: str) -> str:
    """Returns the text of the note by which the unit keeps this folder alone."""
    return f"STREAMS={name}\n"


def _is_of_a_fleet(folder: Path) -> bool:
    return _OF_A_FLEET.fullmatch(folder.name) is not None and folder.is_dir() and not folder.is_symlink()
