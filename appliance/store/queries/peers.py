"""Queries the peers of sessions: their figures, and their baselines, the counters as last billed.

A live or closing session has one row, by the number of its address; it is what each reading of the counters changes.
"""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING

from appliance.domain.entities import Baseline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import aiosqlite

    from appliance.domain.accounting import Reading
    from appliance.domain.charges import Amount
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Session

# A replacement keeps the peer of the session that it replaces: the row is there only then, and keeps its baseline.
_PUT = """
INSERT INTO peers (address_offset, bytes_in, bytes_out, handshake_seen_ns, counted_ms, counted_until_ms,
    counted_boot_id, quiet_since_ms, quiet_boot_id, carries_until_ms, last_handshake_at)
VALUES (?1, 0, 0, ?2, 0, ?3, ?4, ?5, nullif(?6, ?4), ?7, ?8)
ON CONFLICT DO UPDATE SET bytes_in = 0, bytes_out = 0, last_handshake_at = excluded.last_handshake_at,
    handshake_seen_ns = excluded.handshake_seen_ns, counted_ms = 0, counted_until_ms = excluded.counted_until_ms,
    quiet_since_ms = excluded.quiet_since_ms, quiet_boot_id = excluded.quiet_boot_id,
    carries_until_ms = excluded.carries_until_ms,
    baseline_boot_id = nullif(coalesce(baseline_boot_id, counted_boot_id), excluded.counted_boot_id),
    counted_boot_id = excluded.counted_boot_id
"""
# What the replacement's handshakes let the tunnel carry, it carries for its predecessor, which has the same client.
_BRING_BACK = """
INSERT INTO peers (address_offset, bytes_in, bytes_out, last_handshake_at, handshake_seen_ns, counted_ms,
    counted_until_ms, counted_boot_id, quiet_since_ms, quiet_boot_id)
SELECT address_offset, bytes_in, bytes_out, last_handshake_at, handshake_seen_ns, counted_ms,
    ?1, ?2, quiet_since_ms, nullif(quiet_boot_id, ?2)
FROM sessions WHERE id = ?3 AND state = 'terminated'
ON CONFLICT DO UPDATE SET bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out,
    last_handshake_at = excluded.last_handshake_at, handshake_seen_ns = excluded.handshake_seen_ns,
    counted_ms = excluded.counted_ms, counted_until_ms = excluded.counted_until_ms,
    quiet_since_ms = excluded.quiet_since_ms, quiet_boot_id = excluded.quiet_boot_id,
    carries_until_ms = iif(counted_boot_id = excluded.counted_boot_id, carries_until_ms, 0),
    baseline_boot_id = nullif(coalesce(baseline_boot_id, counted_boot_id), excluded.counted_boot_id),
    counted_boot_id = excluded.counted_boot_id
"""
# A baseline that was not read stays, and so does its boot, which may be an earlier one than that of the time.
_ADD_READING = """
UPDATE peers SET
    bytes_in = bytes_in + min(?2, 9223372036854775807 - bytes_in),
    bytes_out = bytes_out + min(?3, 9223372036854775807 - bytes_out), counted_ms = counted_ms + ?4,
    last_handshake_at = ?5, handshake_seen_ns = ?6, counted_until_ms = ?7,
    quiet_since_ms = ?9, quiet_boot_id = nullif(?10, ?8), carries_until_ms = ?15,
    baseline_boot_id = nullif(coalesce(?11, baseline_boot_id, counted_boot_id), ?8), ifindex = coalesce(?12, ifindex),
    rx_bytes = coalesce(?13, rx_bytes), tx_bytes = coalesce(?14, tx_bytes), counted_boot_id = ?8
WHERE address_offset = ?1
"""


async def baselines(db: aiosqlite.Connection) -> AsyncIterator[tuple[bytes, Baseline]]:
    """Yields each baseline with its public key, row by row, as `sessions.each_unfinished` does."""
    async with await db.execute("SELECT public_key, boot_id, ifindex, rx_bytes, tx_bytes FROM baselines") as cursor:
        async for key, boot_id, *counters in cursor:
            yield key, Baseline(intern(boot_id), *counters)


async def put(db: aiosqlite.Connection, opened: Iterable[Session]) -> None:
    """Gives new sessions their rows. One that replaces a session has that one's, with its baseline."""
    await db.executemany(
        _PUT,
        [
            (
                *(s.address_offset, s.handshake_seen_ns, s.counted_until_ms, s.counted_boot_id),
                *(s.quiet_since_ms, s.quiet_boot_id, s.carries_until_ms, s.last_handshake_at),
            )
            for s in opened
        ],
    )


async def put_baselines(db: aiosqlite.Connection, baselines: Iterable[tuple[int, Baseline]]) -> None:
    """Gives new sessions the counters, by their addresses, from which they count."""
    await db.executemany(
        """
        UPDATE peers SET ifindex = ?2, rx_bytes = ?3, tx_bytes = ?4, baseline_boot_id = nullif(?5, counted_boot_id)
        WHERE address_offset = ?1
        """,
        [(offset, b.ifindex, b.rx_bytes, b.tx_bytes, b.boot_id) for offset, b in baselines],
    )


async def bring_back(db: aiosqlite.Connection, replaced: Iterable[str], now: Moment) -> None:
    """Gives terminated sessions their rows back, with the figures that they ended with, counted until `now`."""
    await db.executemany(_BRING_BACK, [(now.boot_ms, now.boot_id, session_id) for session_id in replaced])


async def drop(db: aiosqlite.Connection, address_offsets: Iterable[int]) -> None:
    """Deletes rows, each with its baseline. One of a session that is live or closing stays."""
    await db.executemany(
        """
        DELETE FROM peers WHERE address_offset = ? AND NOT EXISTS (
            SELECT 1 FROM sessions s WHERE s.address_offset = peers.address_offset AND s.state IN ('live', 'closing'))
        """,
        [(offset,) for offset in address_offsets],
    )


async def add_readings(db: aiosqlite.Connection, readings: Iterable[Reading]) -> None:
    """Adds to figures and replaces baselines; one that was not read stays. Must be called inside one transaction.

    Totals stop at 2^63 - 1.
    """
    await db.executemany(_ADD_READING, [_figures(r.after, r.baseline, r.amount) for r in readings])


def _figures(s: Session, baseline: Baseline | None, amount: Amount) -> tuple[object, ...]:
    counters: tuple[object, ...] = (None, None, None, None)
    if baseline is not None:
        counters = (baseline.boot_id, baseline.ifindex, baseline.rx_bytes, baseline.tx_bytes)
    return (
        *(s.address_offset, amount.bytes_in, amount.bytes_out, amount.time_ms, s.last_handshake_at),
        *(s.handshake_seen_ns, s.counted_until_ms, s.counted_boot_id, s.quiet_since_ms, s.quiet_boot_id, *counters),
        s.carries_until_ms,
    )


async def forget_baselines(db: aiosqlite.Connection, address_offsets: Iterable[int]) -> None:
    """Deletes baselines of peers that are about to be re-added: their counters start at zero."""
    await db.executemany(
        """
        UPDATE peers SET ifindex = NULL, rx_bytes = NULL, tx_bytes = NULL, baseline_boot_id = NULL
        WHERE address_offset = ?
        """,
        [(offset,) for offset in address_offsets],
    )
