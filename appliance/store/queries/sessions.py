"""Queries sessions, with the figures of those that have a peer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from sys import intern
from typing import TYPE_CHECKING, Any

from appliance.domain import ids
from appliance.domain.entities import Reason, Session, State
from appliance.domain.pricing import Rates
from appliance.domain.tiers import Tier
from appliance.store.queries import peers

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    import aiosqlite

    from appliance.domain.clock import Moment

# A range of the index for each form of the id, each with a limit: UNION reads all of both before its own.
IDS_LIKE = """
SELECT id FROM (SELECT id FROM sessions WHERE state <> 'pending' AND id >= :a AND id < :b LIMIT :most)
UNION SELECT id FROM (SELECT id FROM sessions WHERE state <> 'pending' AND id >= :c AND id < :d LIMIT :most)
LIMIT :most
"""
# The figures of one that has a peer change with each reading, and are in the peer's row; an ended one has its last.
# The columns are the fields of Session in their order, and in the place of `rates` its own at the end.
_SELECT = """
SELECT s.id, s.account_id, a.name, s.tier, a.tier, s.region, s.public_ip, s.public_key, s.address_offset, s.ipv6,
    s.state, s.created_at, s.expires_at, coalesce(p.bytes_in, s.bytes_in), coalesce(p.bytes_out, s.bytes_out),
    iif(p.bytes_in IS NULL, s.last_handshake_at, p.last_handshake_at),
    coalesce(p.handshake_seen_ns, s.handshake_seen_ns), coalesce(p.quiet_since_ms, s.quiet_since_ms),
    coalesce(p.quiet_boot_id, p.counted_boot_id, s.quiet_boot_id), coalesce(p.counted_ms, s.counted_ms),
    coalesce(p.counted_until_ms, s.counted_until_ms), coalesce(p.counted_boot_id, s.counted_boot_id),
    coalesce(p.carries_until_ms, 0), NULL,
    s.reason, s.note, s.terminated_at, s.told, coalesce(s.device_id, ''),
    s.currency, s.millicents_per_minute, s.millicents_per_gib
FROM sessions s JOIN accounts a ON a.id = s.account_id
LEFT JOIN peers p ON p.address_offset = s.address_offset AND s.state IN ('live', 'closing')
"""
_BY_TIME = """
WHERE s.id IN (
    SELECT id FROM sessions WHERE account_id = :account AND state <> 'pending' AND (created_at, id) < (:at, :id)
    ORDER BY created_at DESC, id DESC LIMIT :limit)
ORDER BY s.created_at DESC, s.id DESC
"""
# The second part names the index.
_LIVE_BY_TIME = _BY_TIME.replace("state <> 'pending'", "state = 'live' AND state <> 'terminated'")
_INSERT = """
INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state,
    created_at, expires_at, quiet_since_ms, quiet_boot_id, currency, millicents_per_minute, millicents_per_gib,
    token_id, reason, device_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_TERMINATE = """
UPDATE sessions SET state = 'terminated', terminated_at = ?, reason = coalesce(reason, ?),
    (bytes_in, bytes_out, counted_ms, last_handshake_at, handshake_seen_ns, quiet_since_ms, quiet_boot_id) = (
        SELECT coalesce(p.bytes_in, s.bytes_in), coalesce(p.bytes_out, s.bytes_out),
            coalesce(p.counted_ms, s.counted_ms), iif(p.bytes_in IS NULL, s.last_handshake_at, p.last_handshake_at),
            coalesce(p.handshake_seen_ns, s.handshake_seen_ns), coalesce(p.quiet_since_ms, s.quiet_since_ms),
            coalesce(p.quiet_boot_id, p.counted_boot_id, s.quiet_boot_id)
        FROM sessions s LEFT JOIN peers p ON p.address_offset = s.address_offset WHERE s.id = sessions.id)
WHERE id = ? AND state IN ('live', 'closing')
"""


_AT = {name: at for at, name in enumerate(Session.__struct_fields__)}
_TEXTS = ("account_id", "account", "region", "public_ip", "quiet_boot_id", "counted_boot_id", "note", "told")
_SHARED = [_AT[name] for name in _TEXTS]
_IPV6, _RATES = _AT["ipv6"], _AT["rates"]
_NAMED: list[tuple[int, Mapping[Any, object]]] = [
    (_AT["tier"], {tier.value: tier for tier in Tier}),
    (_AT["account_tier"], {tier.value: tier for tier in Tier}),
    (_AT["state"], {state.value: state for state in State}),
    (_AT["reason"], {None: None, "": None, **{reason.value: reason for reason in Reason}}),
]


def _session(row: sqlite3.Row) -> Session:
    """Builds a session from a row. Interns strings that many sessions share: each row brings its own copy of them."""
    *values, currency, per_minute, per_gib = row
    for at in _SHARED:
        values[at] = intern(values[at])
    for at, by_value in _NAMED:
        values[at] = by_value[values[at]]
    values[_IPV6] = bool(values[_IPV6])
    if currency is not None:
        values[_RATES] = Rates(intern(currency), per_minute, per_gib)
    return Session(*values)


def rates_of(row: sqlite3.Row) -> Rates | None:
    if row["currency"] is None:
        return None
    return Rates(intern(row["currency"]), row["millicents_per_minute"], row["millicents_per_gib"])


async def _fetch(db: aiosqlite.Connection, where: str, parameters: Iterable[object] = ()) -> list[Session]:
    return [_session(row) for row in await db.execute_fetchall(f"{_SELECT} {where}", tuple(parameters))]


# Reading -------------------------------------------------------------------------------------------


async def by_id(db: aiosqlite.Connection, session_id: str) -> Session | None:
    return next(iter(await _fetch(db, "WHERE s.id = ?", (session_id,))), None)


async def by_ids(db: aiosqlite.Connection, session_ids: Iterable[str]) -> dict[str, Session]:
    """Returns those of the sessions that there are, by id."""
    found = await _fetch(db, "WHERE s.id IN (SELECT value FROM json_each(?))", (json.dumps(list(session_ids)),))
    return {session.id: session for session in found}


async def ids_like(db: aiosqlite.Connection, start: str, most: int) -> list[str]:
    """Returns up to `most` ids that begin like this, with or without their prefix; pending sessions have none yet."""
    rows = await db.execute_fetchall(IDS_LIKE, ids.beginning(start, ids.SESSION_PREFIX) | {"most": most})
    return [row["id"] for row in rows]


async def each_unfinished(db: aiosqlite.Connection) -> AsyncIterator[Session]:
    """Yields each session that is not terminated, oldest first.

    Use within one transaction: other readers of the connection see the same snapshot meanwhile. Reads row by row:
    all sessions at once would take memory that stays with the process.
    """
    # The + keeps SQLite from reading all sessions in the order of their numbers to spare itself the sorting of few.
    async with await db.execute(f"{_SELECT} WHERE s.state <> 'terminated' ORDER BY +s.number") as cursor:
        async for row in cursor:
            yield _session(row)


async def unfinished(db: aiosqlite.Connection) -> list[Session]:
    """Returns all sessions that are not terminated, oldest first."""
    return [session async for session in each_unfinished(db)]


async def places(db: aiosqlite.Connection) -> dict[int, bool]:
    """Returns the number of the address of each session that is not terminated, and whether it has IPv6."""
    async with await db.execute("SELECT address_offset, ipv6 FROM sessions WHERE state <> 'terminated'") as cursor:
        return {offset: bool(ipv6) async for offset, ipv6 in cursor}


async def unfinished_of(db: aiosqlite.Connection, account_id: str) -> list[Session]:
    return await _fetch(db, "WHERE s.account_id = ? AND s.state <> 'terminated'", (account_id,))


async def unfinished_with(db: aiosqlite.Connection, public_key: bytes) -> list[Session]:
    """Returns the sessions with this key that are not terminated."""
    return await _fetch(db, "WHERE s.public_key = ? AND s.state <> 'terminated'", (public_key,))


async def unfinished_of_device(db: aiosqlite.Connection, device_id: str) -> list[Session]:
    return await _fetch(db, "WHERE s.device_id = ? AND s.state <> 'terminated'", (device_id,))


@dataclass(frozen=True, slots=True)
class Page:
    """Selects sessions to list, newest first. `before` is the id of the last session of the previous page."""

    account_id: str | None = None
    live: bool = False
    before: str | None = None
    limit: int | None = None


async def page(db: aiosqlite.Connection, wanted: Page) -> list[Session]:
    """Returns a page of sessions, without pending ones: they were not yet reported to a client."""
    where, parameters = "WHERE s.state <> 'pending'", list[object]()
    if wanted.account_id is not None:
        where += " AND s.account_id = ?"
        parameters.append(wanted.account_id)
    if wanted.live:
        where += " AND s.state = 'live' AND s.state <> 'terminated'"  # the second part names the index
    # With the bound SQLite reads an index of unfinished sessions, which has them in this order, up to the limit.
    number = "(SELECT number FROM sessions WHERE id = ?)" if wanted.before is not None else "?"
    where += " AND s.number < " + number + " ORDER BY s.number DESC LIMIT ?"
    parameters += [wanted.before or 2**63 - 1, -1 if wanted.limit is None else wanted.limit]
    return await _fetch(db, where, parameters)


async def page_by_time(
    db: aiosqlite.Connection, account_id: str, *, live: bool, before: tuple[int, str] | None, limit: int
) -> list[Session]:
    """Returns up to `limit` sessions of an account, the largest (created_at, id) first, of those below `before`."""
    at, id_ = (2**63 - 1, "") if before is None else before
    parameters = {"account": account_id, "at": at, "id": id_, "limit": limit}
    by_time = _LIVE_BY_TIME if live else _BY_TIME
    return [_session(row) for row in await db.execute_fetchall(_SELECT + by_time, parameters)]


# Writing -------------------------------------------------------------------------------------------


async def insert(db: aiosqlite.Connection, opened: Sequence[tuple[Session, str | None]]) -> None:
    """Inserts new sessions, live or closing, each with the id of the token it is opened with, and their peers."""
    await db.executemany(_INSERT, [_row(*each) for each in opened])
    await peers.put(db, [s for s, _ in opened])


def _row(s: Session, token_id: str | None) -> tuple[object, ...]:
    return (
        *(s.id, s.account_id, s.tier, s.region, s.public_ip, s.public_key, s.address_offset, s.ipv6, s.state),
        *(s.created_at, s.expires_at, s.quiet_since_ms, s.quiet_boot_id),
        *((s.rates.currency, s.rates.per_minute, s.rates.per_gib) if s.rates else (None, None, None)),
        token_id,
        s.reason,
        s.device_id or None,
    )


async def delete_pending(db: aiosqlite.Connection) -> None:
    await db.execute("DELETE FROM sessions WHERE state = 'pending' AND state <> 'terminated'")


async def take_back(db: aiosqlite.Connection, session_ids: Iterable[str]) -> None:
    """Deletes sessions whose creation was never answered to the client. Their peers' rows are left to the caller."""
    await db.executemany(
        "DELETE FROM sessions WHERE id = ? AND state <> 'terminated'",
        [(session_id,) for session_id in session_ids],
    )


async def mark_closing(db: aiosqlite.Connection, session_ids: Iterable[str], reason: Reason, note: str = "") -> int:
    """Marks live sessions closing; returns how many. The first reason stays.

    `note`: an admin's words, which a session's client is told.
    """
    marked = await db.executemany(
        "UPDATE sessions SET state = 'closing', reason = ?, note = ?, told = ? WHERE id = ? AND state = 'live'",
        [(reason, note, note, session_id) for session_id in session_ids],
    )
    return marked.rowcount


async def close_of_token(db: aiosqlite.Connection, token_id: str) -> int:
    """Marks the live sessions closing that were opened with this token. Returns how many."""
    cursor = await db.execute(
        "UPDATE sessions SET state = 'closing', reason = 'admin' WHERE token_id = ? AND state = 'live'", (token_id,)
    )
    return cursor.rowcount


async def close_for_disabled_accounts(db: aiosqlite.Connection) -> None:
    """Marks sessions closing that went live while an admin was disabling or deleting their account."""
    await db.execute(
        """
        UPDATE sessions SET state = 'closing', reason = 'admin' WHERE state = 'live' AND state <> 'terminated'
          AND account_id IN (SELECT id FROM accounts WHERE disabled = 1 OR deleted_at IS NOT NULL)
        """
    )


async def mark_terminated(db: aiosqlite.Connection, ended: Iterable[tuple[str, Reason, int | None]]) -> None:
    """Marks sessions (id, reason, when) terminated, with their last figures. A closing one keeps its reason.

    Their peers' rows are left to the caller: the peer of one that is replaced is its successor's.
    """
    await db.executemany(_TERMINATE, [(when, reason, session_id) for session_id, reason, when in ended])


async def bring_back(db: aiosqlite.Connection, replaced: Iterable[tuple[str, str | None]], now: Moment) -> None:
    """Makes sessions (id, why it is to close) what they were before they were replaced, counted until now."""
    replaced = list(replaced)
    await peers.bring_back(db, [session_id for session_id, _ in replaced], now)
    await db.executemany(
        """
        UPDATE sessions SET state = CASE WHEN reason = 'replaced' AND ?1 IS NULL THEN 'live' ELSE 'closing' END,
            reason = coalesce(nullif(reason, 'replaced'), ?1), terminated_at = NULL
        WHERE id = ?2 AND state = 'terminated'
        """,
        [(reason, session_id) for session_id, reason in replaced],
    )
