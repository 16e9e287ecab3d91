"""Paid sessions as a running server would have written them, for invoices."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import structs

from appliance.domain import accounting
from appliance.domain.accounting import Reading
from appliance.domain.charges import Amount
from appliance.domain.clock import HostClock, Moment
from appliance.domain.entities import Reason, State
from appliance.domain.pricing import Rates
from appliance.domain.tiers import Tier
from appliance.store.queries import accounts, invoices, peers, retention
from appliance.store.queries import sessions as rows
from tests.support.unit.a_session import A_SESSION

if TYPE_CHECKING:
    import aiosqlite
    import pytest

    from tests.support.cli.command_line import CommandLine, Done

RATES = Rates("eur", 1000, 5000)
GIB = 1_073_741_824
SHORT, ACROSS, RUNNING = (f"ses_{n:024x}" for n in (2, 3, 4))  # of `november`


def ms(instant: str) -> int:
    return int(datetime.fromisoformat(instant).timestamp()) * 1000


async def count(db: aiosqlite.Connection, session_id: str, start: str, end: str, received: int, sent: int) -> None:
    """The session ran, and moved so many bytes, evenly from `start` to `end`."""
    stored = await rows.by_id(db, session_id)
    assert stored is not None
    moved = Amount(ms(end) - ms(start), received, sent)
    after = accounting.counted(stored, moved, Moment(ms(end), 0, "boot"))
    reading = Reading(moved, ms(start), ms(end), after, None)
    await peers.add_readings(db, [reading])
    await invoices.add_readings(db, [reading])


class Books:
    """The store of one exit, and its invoices. The first session is of place 2, the next one of 3."""

    def __init__(self, wga: CommandLine) -> None:
        self.wga = wga
        self._opened = 1

    def invoice(self, *arguments: str, month: str = "2026-11") -> Done:
        """ada's."""
        return self.wga("invoice", "ada", "--month", month, *arguments)

    def session(
        self, start: str, rates: Rates | None = RATES, account: str = "ada", carries_until_ms: int = 2**53
    ) -> str:
        """A session, live from `start` on, whose tunnel can carry; its id."""
        self._opened += 1
        new = structs.replace(
            A_SESSION,
            id=f"ses_{self._opened:024x}",
            tier=Tier.PAID,
            public_key=bytes([self._opened]) * 32,
            address_offset=self._opened,
            created_at=ms(start),
            expires_at=ms(start) + 30 * 86_400_000,
            rates=rates,
        )

        async def insert(db: aiosqlite.Connection) -> None:
            owner = await accounts.by_name(db, account)
            assert owner is not None
            opened = structs.replace(
                new,
                account_id=owner.id,
                state=State.LIVE,
                quiet_boot_id="boot",
                counted_until_ms=0,
                counted_boot_id="boot",
                carries_until_ms=carries_until_ms,
            )
            await rows.insert(db, [(opened, None)])
            await invoices.begin(db, [opened], ms(start))

        self.wga.write(insert)
        return new.id

    def count(self, session_id: str, start: str, end: str, received: int = 0, sent: int = 0) -> None:
        self.wga.write(lambda db: count(db, session_id, start, end, received, sent))

    def end(self, session_id: str, at: str) -> None:
        async def finish(db: aiosqlite.Connection) -> None:
            await rows.mark_terminated(db, [(session_id, Reason.CLOSED, ms(at))])
            await invoices.end(db, [(session_id, ms(at))])

        self.wga.write(finish)

    def forget(self, before: int) -> None:
        """As retention does."""

        async def delete(db: aiosqlite.Connection) -> None:
            await retention.delete_sessions(db, await retention.ended_before(db, before, 1000))

        self.wga.write(delete)

    def discard(self, before: int) -> None:
        """As `pricing.keep` does."""

        async def delete(db: aiosqlite.Connection) -> None:
            ended = await retention.lines_ended_before(db, before, retention.FIRST, 1000)
            await retention.delete_invoiced(db, [place.session_id for place in ended], before)

        self.wga.write(delete)

    def account_id(self, name: str) -> str:
        """Of whoever has the name now."""
        with closing(sqlite3.connect(self.wga.state.store)) as db:
            (found,) = db.execute("SELECT id FROM accounts WHERE name = ? AND deleted_at IS NULL", (name,)).fetchone()
        return str(found)

    def alter(self, sql: str, session_id: str) -> None:
        """One row, by hand, in the SQLite file."""
        with closing(sqlite3.connect(self.wga.state.store)) as db, db:
            assert db.execute(sql, {"id": session_id}).rowcount == 1, sql


def november(wga: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Books:
    """Three sessions of ada's: a short one, one of 21 minutes across the end of November, and one that runs.

    By the clock, November is not over.
    """
    monkeypatch.setattr(HostClock, "now", lambda _: Moment(ms("2026-11-30T23:59:59Z"), 0, "another"))
    wga.do("account", "create", "ada", "--tier", "paid")
    books = Books(wga)
    short = books.session("2026-11-24T10:00:00Z")
    books.count(short, "2026-11-24T10:00:00Z", "2026-11-24T10:01:01Z", received=1)
    books.end(short, "2026-11-24T10:01:01Z")
    across = books.session("2026-11-30T23:49:30Z")
    books.count(across, "2026-11-30T23:49:30Z", "2026-12-01T00:10:30Z", received=2 * GIB, sent=GIB)
    books.end(across, "2026-12-01T00:10:30Z")
    running = books.session("2026-11-30T12:00:00Z")
    assert [short, across, running] == [SHORT, ACROSS, RUNNING]
    return books


# What `invoice ada --month 2026-11` prints.
# 61 s x 1000/60 = 1016.67; half of 21 minutes = 10500; 1.5 GiB x 5000 = 7500.
TEXT = """\
SESSION                       START                 END                   SECONDS  BYTES       TIME     TRAFFIC  CURRENCY
ses_000000000000000000000002  2026-11-24T10:00:00Z  2026-11-24T10:01:01Z  61       1           0.01016  0.00000  eur
ses_000000000000000000000004  2026-11-30T12:00:00Z  running               0        0           0.00000  0.00000  eur
ses_000000000000000000000003  2026-11-30T23:49:30Z  2026-12-01T00:00:00Z  630      1610612736  0.10500  0.07500  eur
total                                                                     691      1610612737  0.11516  0.07500  eur
SECONDS: in which the tunnel could carry, of the time from START to END
to pay: 0.19016 eur
"""  # noqa: E501 (as it is printed)
