"""Notes which life a peer's counters are in where no restore of the store reaches. See fleet.reports.epochs.

The file is the state directory's, beside the store: lines of a session and a mark, for this boot alone. It is written
in the transaction that names a life, before its peer is put; a mark that is noted and not stored is of a life without
a peer. A session that has no line is in the life with which it began.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.store.queries import fleet_lives, fleet_reports

if TYPE_CHECKING:
    from pathlib import Path

    import aiosqlite

    from appliance.store.database import Store

log = logging.getLogger(__name__)

_TRIGGER = """
CREATE TEMP TRIGGER IF NOT EXISTS peer_life_begun AFTER UPDATE OF life ON main.fleet_reports
WHEN NEW.life <> OLD.life BEGIN SELECT note_peer_life(NEW.session_id, NEW.life); END
"""


class PeerLives:
    """Is the file. What cannot be written is no error: without the file, all are in the lives that the store names."""

    def __init__(self, path: Path, boot_id: str) -> None:
        self._path = path
        self._boot_id = boot_id

    def read(self) -> dict[str, str]:
        """Returns the mark of each session that has one."""
        try:
            boot_id, *lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return {}
        if boot_id != self._boot_id:
            return {}
        return {session_id: mark for session_id, _, mark in (line.partition(" ") for line in lines) if mark}

    def put(self, marks: dict[str, str]) -> None:
        """Replaces all that is noted."""
        self._remove()
        if marks:
            self._append("".join(f"{session_id} {mark}\n" for session_id, mark in marks.items()))

    def note(self, session_id: str, mark: str) -> None:
        self._append(f"{session_id} {mark}\n")

    def _append(self, lines: str) -> None:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                begun = b"" if os.fstat(descriptor).st_size else f"{self._boot_id}\n".encode()
                file.write(begun + lines.encode())
        except OSError as error:
            log.warning("cannot note which peers were put again, which a restore needs to know: %s", error)
            self._remove()  # what it has may no longer be true

    def _remove(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


async def follow(store: Store, path: Path, boot_id: str) -> None:
    """Has a store that went back in time learn which lives the counters are in, and notes those that begin.

    For a start, before baselines are read. Does nothing on a host that is in no fleet. Raises StoreUnavailable.
    """
    async with store.write() as db:
        if not await fleet_reports.is_noting(db):
            return
        await fleet_reports.begin_reporting(db)
        noted = PeerLives(path, boot_id)
        marks = noted.read()
        others = await fleet_lives.take_over(db, marks)
        if others:
            log.warning("the store went back in time: the peers of %d sessions were put again since", others)
        live = await fleet_lives.unfinished(db, marks)
        noted.put({session_id: mark for session_id, mark in marks.items() if session_id in live})
        await _attach(db, noted)


async def begin(db: aiosqlite.Connection, path: Path, boot_id: str) -> None:
    """Notes lives that begin from now on, of a host that comes into a fleet in the caller's transaction."""
    noted = PeerLives(path, boot_id)
    noted.put({})
    await _attach(db, noted)


async def _attach(db: aiosqlite.Connection, noted: PeerLives) -> None:
    await db.create_function("note_peer_life", 2, noted.note)
    await db.execute(_TRIGGER)
