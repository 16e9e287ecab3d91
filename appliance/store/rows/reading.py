"""Reads the unfinished sessions from the store into rows, one by one: no more than a row of each is in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.entities import State
from appliance.store.queries import peers, sessions
from appliance.store.rows.offsets import Offsets
from appliance.store.rows.session_rows import SessionRows

if TYPE_CHECKING:
    from collections.abc import Iterable

    import aiosqlite

    from appliance.domain.entities import Account


async def read_rows(db: aiosqlite.Connection, accounts: Iterable[Account]) -> tuple[SessionRows, Offsets]:
    """Returns the sessions that have peers, with their baselines, and the addresses of all that are unfinished.

    `accounts`: at least those of the sessions.
    """
    rows, offsets = SessionRows(accounts), Offsets()
    async for session in sessions.each_unfinished(db):
        offsets.add(session.address_offset)
        if session.state in (State.LIVE, State.CLOSING):
            rows.put(session)
    async for key, baseline in peers.baselines(db):
        if (row := rows.find(key)) >= 0:
            rows.set_baseline(row, baseline)
    return rows, offsets
