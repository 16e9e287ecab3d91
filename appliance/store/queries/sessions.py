"""Queries sessions, their figures, and their baselines: the counters as last billed."""

from __future__ import annotations

from dataclasses import dataclass
from sys import intern
from typing import TYPE_CHECKING

from appliance.domain import ids
from appliance.domain.entities import Baseline, Reason, Session, State
from appliance.domain.pricing import Rates
from appliance.domain.tiers import Tier

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    import aiosqlite

    from appliance.domain.accounting import Reading
    from appliance.domain.clock import Moment

# A range of the index for each form of the id, each with a limit: UNION reads all of both before its own.
IDS_LIKE = """
SELECT id FROM (SELECT id FROM sessions WHERE state <> 'pending' AND id >= :a AND id < :b LIMIT :most)
UNION SELECT id FROM (SELECT id FROM sessions WHERE state <> 'pending' AND id >= :c AND id < :d LIMIT :most)
LIMIT :most
"""
# The figures of one that has a peer change with each reading, and are in the peer's row; an ended one has its last.
_SELECT = """
SELECT s.id, s.account_id, s.tier, s.region, s.public_ip, s.public_key, s.address_offset, s.ipv6, s.state, s.created_at,
    s.expires_at, s.reason, s.note, s.told, s.terminated_at, s.currency, s.millicents_per_minute, s.millicents_per_gib,
    coalesce(p.bytes_in, s.bytes_in) AS bytes_in, coalesce(p.bytes_out, s.bytes_out) AS bytes_out,
    iif(p.bytes_in IS NULL, s.last_handshake_at, p.last_handshake_at) AS last_handshake_at,
    coalesce(p.handshake_seen_ns, s.handshake_seen_ns) AS handshake_seen_ns,
    coalesce(p.quiet_since_ms, s.quiet_since_ms) AS quiet_since_ms,
    coalesce(p.quiet_boot_id, p.counted_boot_id, s.quiet_boot_id) AS quiet_boot_id,
    coalesce(p.counted_ms, s.counted_ms) AS counted_ms,
    coalesce(p.counted_until_ms, s.counted_until_ms) AS counted_until_ms,
    coalesce(p.counted_boot_id, s.counted_boot_id) AS counted_boot_id,
    a.name AS account, a.tier AS account_tier
FROM sessions s JOIN accounts a ON a.id = s.account_id
LEFT JOIN peers p ON p.address_offset = s.address_offset AND s.state IN ('live', 'closing')
"""
# The baseline of a peer that another session had is kept: a replacement keeps the peer. Its row is there only then.
_PUT_PEER = """
INSERT INTO peers (address_offset, bytes_in, bytes_out, handshake_seen_ns, counted_ms, counted_until_ms,
    counted_boot_id, quiet_since_ms)
SELECT address_offset, 0, 0, ?, 0, ?, ?, ? FROM sessions WHERE id = ?
ON CONFLICT DO UPDATE SET bytes_in = 0, bytes_out = 0, last_handshake_at = NULL,
    handshake_seen_ns = excluded.handshake_seen_ns, counted_ms = 0, counted_until_ms = excluded.counted_until_ms,
    counted_boot_id = excluded.counted_boot_id, quiet_since_ms = excluded.quiet_since_ms, quiet_boot_id = NULL,
    baseline_boot_id = nullif(coalesce(baseline_boot_id, counted_boot_id), excluded.counted_boot_id)
"""
_ADD_READING = """
INSERT INTO peers (address_offset, bytes_in, bytes_out, last_handshake_at, handshake_seen_ns, counted_ms,
    counted_until_ms, counted_boot_id, quiet_since_ms, quiet_boot_id, ifindex, rx_bytes, tx_bytes, baseline_boot_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    bytes_in = bytes_in + min(?, 9223372036854775807 - bytes_in),
    bytes_out = bytes_out + min(?, 9223372036854775807 - bytes_out), counted_ms = counted_ms + ?,
    last_handshake_at = excluded.last_handshake_at, handshake_seen_ns = excluded.handshake_seen_ns,
    counted_until_ms = excluded.counted_until_ms, counted_boot_id = excluded.counted_boot_id,
    quiet_since_ms = excluded.quiet_since_ms, quiet_boot_id = excluded.quiet_boot_id,
    baseline_boot_id = iif(excluded.ifindex IS NULL,
        nullif(coalesce(baseline_boot_id, counted_boot_id), excluded.counted_boot_id), excluded.baseline_boot_id),
    ifindex = coalesce(excluded.ifindex, ifindex), rx_bytes = coalesce(excluded.rx_bytes, rx_bytes),
    tx_bytes = coalesce(excluded.tx_bytes, tx_bytes)
"""
_TERMINATE = """
UPDATE sessions SET state = 'terminated', terminated_at = ?, reason = coalesce(reason, ?),
    (bytes_in, bytes_out, counted_ms, last_handshake_at, handshake_seen_ns) = (
        SELECT coalesce(p.bytes_in, s.bytes_in), coalesce(p.bytes_out, s.bytes_out),
            coalesce(p.counted_ms, s.counted_ms), iif(p.bytes_in IS NULL, s.last_handshake_at, p.last_handshake_at),
            coalesce(p.handshake_seen_ns, s.handshake_seen_ns)
        FROM sessions s LEFT JOIN peers p ON p.address_offset = s.address_offset WHERE s.id = sessions.id)
WHERE id = ? AND state IN ('live', 'closing')
"""
_DROP_PEER = """
DELETE FROM peers WHERE address_offset = (SELECT address_offset FROM sessions WHERE id = ?)
AND NOT EXISTS (
    SELECT 1 FROM sessions s WHERE s.address_offset = peers.address_offset AND s.state IN ('live', 'closing')
)
"""
_TAKE_PEER = """
DELETE FROM peers WHERE address_offset = (SELECT address_offset FROM sessions WHERE id = ? AND state = 'live')
"""


def _session(row: sqlite3.Row) -> Session:
    """Builds a session from a row. Interns strings that many sessions share: each row brings its own copy of them."""
    return Session(
        id=row["id"],
        account_id=intern(row["account_id"]),
        account=intern(row["account"]),
        tier=Tier(row["tier"]),
        account_tier=Tier(row["account_tier"]),
        region=intern(row["region"]),
        public_ip=intern(row["public_ip"]),
        public_key=row["public_key"],
        address_offset=row["address_offset"],
        ipv6=bool(row["ipv6"]),
        state=State(row["state"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        bytes_in=row["bytes_in"],
        bytes_out=row["bytes_out"],
        last_handshake_at=row["last_handshake_at"],
        handshake_seen_ns=row["handshake_seen_ns"],
        quiet_since_ms=row["quiet_since_ms"],
        quiet_boot_id=intern(row["quiet_boot_id"]),
        counted_ms=row["counted_ms"],
        counted_until_ms=row["counted_until_ms"],
        counted_boot_id=intern(row["counted_boot_id"]),
        rates=rates_of(row),
        reason=Reason(row["reason"]) if row["reason"] else None,
        note=intern(row["note"]),
        terminated_at=row["terminated_at"],
        told=intern(row["told"]),
    )


def rates_of(row: sqlite3.Row) -> Rates | None:
    if row["currency"] is None:
        return None
    return Rates(intern(row["currency"]), row["millicents_per_minute"], row["millicents_per_gib"])


async def _fetch(db: aiosqlite.Connection, where: str, parameters: Iterable[object] = ()) -> list[Session]:
    return [_session(row) for row in await db.execute_fetchall(f"{_SELECT} {where}", tuple(parameters))]


# Reading -------------------------------------------------------------------------------------------


async def by_id(db: aiosqlite.Connection, session_id: str) -> Session | None:
    return next(iter(await _fetch(db, "WHERE s.id = ?", (session_id,))), None)


async def ids_like(db: aiosqlite.Connection, start: str, most: int) -> list[str]:
    """Returns up to `most` ids that begin like this, with or without their prefix; pending sessions have none yet."""
    rows = await db.execute_fetchall(IDS_LIKE, ids.beginning(start, ids.SESSION_PREFIX) | {"most": most})
    return [row["id"] for row in rows]


async def unfinished(db: aiosqlite.Connection) -> list[Session]:
    """Returns all sessions that are not terminated, oldest first.

    Use within one transaction: other readers of the connection see the same snapshot meanwhile. Reads row by row:
    all rows held beside all sessions would take memory that stays with the process.
    """
    # The + keeps SQLite from reading all sessions in the order of their numbers to spare itself the sorting of few.
    async with await db.execute(f"{_SELECT} WHERE s.state <> 'terminated' ORDER BY +s.number") as cursor:
        return [_session(row) async for row in cursor]


async def unfinished_of(db: aiosqlite.Connection, account_id: str) -> list[Session]:
    return await _fetch(db, "WHERE s.account_id = ? AND s.state <> 'terminated'", (account_id,))


async def holder_of(db: aiosqlite.Connection, public_key: bytes) -> Session | None:
    """Returns the session whose peer has this key, or is about to have it."""
    where = "WHERE s.public_key = ? AND s.state <> 'terminated' ORDER BY s.state = 'pending'"
    return next(iter(await _fetch(db, where, (public_key,))), None)


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
    if wanted.before is not None:
        where += " AND s.number < (SELECT number FROM sessions WHERE id = ?)"
        parameters.append(wanted.before)
    # Few are live: they are sorted, as in `unfinished`. Of all, the newest are read in the order of their numbers.
    where += f" ORDER BY {'+' if wanted.live else ''}s.number DESC LIMIT ?"
    parameters.append(-1 if wanted.limit is None else wanted.limit)
    return await _fetch(db, where, parameters)


async def baselines(db: aiosqlite.Connection) -> dict[bytes, Baseline]:
    """Returns all baselines by public key. Reads row by row, as `unfinished` does."""
    async with await db.execute("SELECT public_key, boot_id, ifindex, rx_bytes, tx_bytes FROM baselines") as cursor:
        return {key: Baseline(intern(boot_id), *counters) async for key, boot_id, *counters in cursor}


# Writing -------------------------------------------------------------------------------------------


async def insert_pending(db: aiosqlite.Connection, s: Session, token_hash: bytes = b"") -> None:
    """Inserts a session whose peer is not installed yet. `token_hash`: of the token it is opened with."""
    await db.execute(
        """
        INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state,
            created_at, expires_at, quiet_since_ms, quiet_boot_id, currency, millicents_per_minute, millicents_per_gib,
            token_id)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, (SELECT id FROM tokens WHERE hash = ?))
        """,
        (
            *(s.id, s.account_id, s.tier, s.region, s.public_ip, s.public_key, s.address_offset, s.ipv6),
            *(s.created_at, s.expires_at, s.quiet_since_ms, s.quiet_boot_id),
            *((s.rates.currency, s.rates.per_minute, s.rates.per_gib) if s.rates else (None, None, None)),
            token_hash,
        ),
    )


async def mark_live(db: aiosqlite.Connection, session_id: str, now: Moment, handshake_seen_ns: int) -> bool:
    """Marks a pending session live, with its peer installed at `now`.

    Returns False and changes nothing if an admin has disabled the account, drained the node, or revoked its token since
    it was admitted.
    """
    cursor = await db.execute(
        """
        UPDATE sessions SET state = 'live'
        WHERE id = ? AND state = 'pending'
          AND (SELECT drained FROM node) = 0
          AND EXISTS (SELECT 1 FROM accounts a WHERE a.id = account_id AND a.disabled = 0 AND a.deleted_at IS NULL)
          AND NOT EXISTS (SELECT 1 FROM tokens t WHERE t.id = token_id AND t.revoked_at IS NOT NULL)
        """,
        (session_id,),
    )
    if cursor.rowcount != 1:
        return False
    await db.execute(_PUT_PEER, (handshake_seen_ns, now.boot_ms, now.boot_id, now.boot_ms, session_id))
    return True


async def delete_pending(db: aiosqlite.Connection, session_ids: Iterable[str]) -> None:
    await db.executemany(
        "DELETE FROM sessions WHERE id = ? AND state = 'pending'", [(session_id,) for session_id in session_ids]
    )


async def take_back(db: aiosqlite.Connection, session_ids: Iterable[str]) -> None:
    """Deletes sessions whose creation was never answered to the client, pending or live."""
    session_ids = list(session_ids)
    await db.executemany(_TAKE_PEER, [(session_id,) for session_id in session_ids])
    await db.executemany(
        "DELETE FROM sessions WHERE id = ? AND state IN ('pending', 'live')",
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


async def mark_terminated(db: aiosqlite.Connection, ended: Iterable[tuple[str, Reason]], now: int) -> None:
    """Marks sessions terminated with their last figures, once their peers are removed. A closing one keeps its reason.

    The peer of one that is replaced is its successor's, which must be marked live in the same transaction.
    """
    ended = list(ended)
    gone = [(session_id,) for session_id, reason in ended if reason is not Reason.REPLACED]
    await db.executemany(_TERMINATE, [(now, reason, session_id) for session_id, reason in ended])
    await db.executemany(_DROP_PEER, gone)


async def add_readings(db: aiosqlite.Connection, readings: Iterable[Reading]) -> None:
    """Adds to totals and replaces baselines; one that was not read stays. Must be called inside one transaction.

    Totals stop at 2^63 - 1.
    """
    moved = ((r, (r.amount.bytes_in, r.amount.bytes_out, r.amount.time_ms)) for r in readings)
    await db.executemany(_ADD_READING, [_figures(r.after, r.baseline) + amount for r, amount in moved])


def _figures(s: Session, baseline: Baseline | None) -> tuple[object, ...]:
    counters: tuple[object, ...] = (None, None, None, None)
    if baseline is not None:
        boot_id = None if baseline.boot_id == s.counted_boot_id else baseline.boot_id
        counters = (baseline.ifindex, baseline.rx_bytes, baseline.tx_bytes, boot_id)
    quiet_boot_id = None if s.quiet_boot_id == s.counted_boot_id else s.quiet_boot_id
    return (
        *(s.address_offset, s.bytes_in, s.bytes_out, s.last_handshake_at, s.handshake_seen_ns),
        *(s.counted_ms, s.counted_until_ms, s.counted_boot_id, s.quiet_since_ms, quiet_boot_id, *counters),
    )


async def forget_baselines(db: aiosqlite.Connection, public_keys: Iterable[bytes]) -> None:
    """Deletes baselines of peers that were removed or are about to be re-added: their counters start at zero."""
    await db.executemany(
        """
        UPDATE peers SET ifindex = NULL, rx_bytes = NULL, tx_bytes = NULL, baseline_boot_id = NULL
        WHERE address_offset IN (SELECT address_offset FROM sessions WHERE public_key = ? AND state <> 'terminated')
        """,
        [(key,) for key in public_keys],
    )
