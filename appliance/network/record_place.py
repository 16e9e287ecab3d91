"""Tells whether a record was written in the directory in which it is found. Blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def place_of(record: Path) -> list[int]:
    """Returns what a copy of the record's directory does not share with it, for as long as the host runs.

    A second appliance may be begun with a copy of the first one's state. What the first has on the host is not its own.
    Raises OSError.
    """
    found = record.parent.stat()
    return [found.st_dev, found.st_ino]
