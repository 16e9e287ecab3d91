"""A store with many sessions that ended long ago: rows as the server would have written them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DAYS_OF_EACH = 3


def fill(store: Path, sessions: int, tier: str = "free") -> None:
    """So many sessions that ended at once, long ago; paid ones with a line, and some daily totals, each."""
    with closing(sqlite3.connect(store)) as db, db:
        db.execute("INSERT INTO accounts (id, name, tier, created_at) VALUES ('acc_1', 'many', ?, 0)", (tier,))
        db.executemany(
            """
            INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state,
                created_at, expires_at, quiet_since_ms, quiet_boot_id, reason, terminated_at)
            VALUES (?, 'acc_1', ?, 'fsn', '192.0.2.1', zeroblob(32), 2, 1, 'terminated', 0, 1, 0, '', 'closed', 7)
            """,
            [(f"ses_{n}", tier) for n in range(sessions)],
        )
        if tier == "paid":
            db.executemany(
                """
                INSERT INTO invoice_lines (session_id, month, account_id, started_at, ended_at, seconds, bytes_in,
                    bytes_out) VALUES (?, '1970-01', 'acc_1', 0, 7, 0, 0, 0)
                """,
                [(f"ses_{n}",) for n in range(sessions)],
            )
            days = [(f"ses_{n}", f"1970-01-0{day + 1}") for n in range(sessions) for day in range(DAYS_OF_EACH)]
            db.executemany("INSERT INTO usage_days VALUES (?, ?, 0, 0, 0)", days)
