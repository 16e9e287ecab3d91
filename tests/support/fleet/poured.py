"""What has gone through the peers of sessions, and what a hub's store says of it: its fold, the lines of invoices."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.fleet.kept_tunnel import KeptTunnel

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Poured:
    """What went through the peer of one session, from the client and to it."""

    rx: int = 0
    tx: int = 0

    def has(self, least: Poured) -> bool:
        return self.rx >= least.rx and self.tx >= least.tx


class PouredSessions:
    """The sessions of an exit. `live`: those with traffic, and their keys; `poured`: of each session there was ever.

    `still`: no session begins, ends or moves anything.
    """

    def __init__(self, folder: Path) -> None:
        self.tunnel = KeptTunnel(folder / "tunnel")
        self.still = False
        self.live: dict[str, bytes] = {}
        self.poured: dict[str, Poured] = {}

    def pour(self, session: str, rx: int, tx: int) -> None:
        if self.tunnel.pour(self.live[session], rx, tx):
            known = self.poured.setdefault(session, Poured())
            known.rx += rx
            known.tx += tx


class StoreRows:
    """Reads a store beside the process that writes it."""

    def __init__(self, store: Path) -> None:
        self.store = store

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.store, timeout=60)) as db:
            return db.execute(sql, parameters).fetchall()

    def folded(self, node: str) -> dict[str, Poured]:
        """What the hub has folded of each session."""
        rows = self.rows("SELECT session_id, bytes_in, bytes_out FROM fleet_sessions WHERE node = ?", node)
        return {session: Poured(rx, tx) for session, rx, tx in rows}

    def billed(self, node: str) -> dict[str, Poured]:
        """What the lines of invoices say of each session that has some."""
        asked = "SELECT session_id, sum(bytes_in), sum(bytes_out) FROM fleet_lines WHERE node = ? GROUP BY session_id"
        return {session: Poured(rx, tx) for session, rx, tx in self.rows(asked, node)}
