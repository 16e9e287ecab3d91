"""Queries an account's windows on each exit of a fleet, as reported to this hub: one row an exit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from appliance.domain.fleet_use import ExitWindows
from appliance.domain.windows import Window, Windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import aiosqlite

_FIGURES = "bytes_opened_at, bytes_used, time_opened_at, time_used_ms"
_PUT = """
INSERT INTO fleet_windows (account_id, node, batch, bytes_opened_at, bytes_used, time_opened_at, time_used_ms)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET
    batch = ?3, bytes_opened_at = ?4, bytes_used = ?5, time_opened_at = ?6, time_used_ms = ?7
WHERE ?3 >= batch
"""


async def put(db: aiosqlite.Connection, node: str, windows: Mapping[str, tuple[int, Windows]]) -> None:
    """Notes the windows of accounts on the node, as told in a batch, unless a later one has told."""
    rows = []
    for account_id, (batch, each) in windows.items():
        figures = (each.traffic.opened_at, each.traffic.used, each.time.opened_at, each.time.used)
        rows.append((account_id, node, batch, *figures))
    await db.executemany(_PUT, rows)


async def on_node(db: aiosqlite.Connection, node: str, account_ids: Iterable[str]) -> dict[str, tuple[int, Windows]]:
    """Returns the windows of those of the accounts that have some on the node, with the batch that told them."""
    rows = await db.execute_fetchall(
        f"SELECT account_id, batch, {_FIGURES} FROM fleet_windows"  # noqa: S608 (constants)
        " WHERE account_id IN (SELECT value FROM json_each(?)) AND node = ?",
        (json.dumps(list(account_ids)), node),
    )
    return {id_: (batch, Windows(Window(a, b), Window(c, d))) for id_, batch, a, b, c, d in rows}


async def of_account(db: aiosqlite.Connection, account_id: str) -> list[ExitWindows]:
    """Returns the account's windows on all exits that have ever reported some."""
    rows = await db.execute_fetchall(
        f"SELECT node, {_FIGURES} FROM fleet_windows WHERE account_id = ?",  # noqa: S608 (constants)
        (account_id,),
    )
    return [ExitWindows(node, Windows(Window(a, b), Window(c, d))) for node, a, b, c, d in rows]
