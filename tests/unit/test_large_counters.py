"""Counters past what a float holds exactly, and up to what the store holds, through meter, store and API."""

from __future__ import annotations

import json
from contextlib import closing
from sqlite3 import connect
from typing import TYPE_CHECKING, Any

import pytest

from appliance.domain import invoice
from appliance.domain.tiers import Tier
from appliance.domain.windows import MOST
from appliance.store.queries import invoices
from tests.support.api.exit_under_test import Client, ExitUnderTest, on_exit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from appliance.domain.invoice import Line

INEXACT = 2**53 + 1  # the first integer that a float does not hold
GIB = 2**30
OCTOBER = 1_790_812_800_000  # 2026-10-01T00:00:00Z
A_BYTE = f"[pricing]\nmillicents_per_minute = 1000\nmillicents_per_gib = {GIB}\n"  # a millicent each
DEAR = f"[pricing]\nmillicents_per_minute = {MOST}\nmillicents_per_gib = {MOST}\n"
UNMETERED = "[tiers.free]\nbytes_limit = 0\nseconds_limit = 0\n"
LARGEST_LIMIT = f"[tiers.free]\nbytes_limit = {MOST}\nseconds_limit = 0\n"


async def move(exit_: ExitUnderTest, session: dict[str, Any], rx: int = 0, tx: int = 0) -> None:
    """A client moves so much, and it is counted."""
    exit_.tunnel.add_traffic(exit_.key_of(session["id"]), rx=rx, tx=tx)
    await exit_.tick(after=1)


async def shown(client: Client, session: dict[str, Any], *fields: str) -> tuple[object, ...]:
    status = await client.status(session["id"])
    return tuple(status[field] for field in fields)


def kinds(path: Path) -> set[str]:
    """The storage classes of all cells of all tables."""
    with closing(connect(path)) as db:
        columns = db.execute(
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'"
        ).fetchall()
        return {
            kind
            for table, column in columns
            for (kind,) in db.execute(f'SELECT DISTINCT typeof("{column}") FROM "{table}"')  # noqa: S608 (the schema's)
        }


async def verified(exit_: ExitUnderTest, client: Client, month: str = "2026-09") -> Sequence[Line]:
    """The month's lines, which agree with the daily totals."""
    async with exit_.store.read() as db:
        lines = await invoices.lines(db, client.account.id, month)
        days = {line.session_id: await invoices.days(db, line.session_id) for line in lines}
    assert invoice.differences(month, lines, days, {}) == []
    return lines


@pytest.mark.parametrize("count", [INEXACT, 2**62 + 1, MOST - 1], ids=["2^53 + 1", "2^62 + 1", "2^63 - 2"])
@on_exit(A_BYTE)
async def test_large_counters_are_exact_to_the_last_digit(exit_: ExitUnderTest, count: int) -> None:
    """A large count, and one byte more, stand to the last digit in the API, the store and after a restart."""
    ada = await exit_.client()
    session = await ada.open()
    await move(exit_, session, rx=count)
    assert await shown(ada, session, "bytes_in", "bytes_out", "quota_bytes_used") == (count, 0, count)
    await move(exit_, session, rx=1)
    await exit_.restart()
    await exit_.tick(after=1)
    answer = await ada.status_answer(session["id"])
    assert f'"bytes_in":{count + 1},' in answer.text
    assert json.loads(answer.text)["cost_bytes_millicents"] == count + 1
    assert f'"bytes_used":{count + 1},' in (await ada.get("/v1/usage")).text
    assert exit_.rows("SELECT bytes_in, bytes_out FROM peers") == [(count + 1, 0)]
    assert exit_.rows("SELECT rx_bytes, tx_bytes FROM baselines") == [(count + 1, 0)]
    assert exit_.rows("SELECT bytes_in, bytes_out FROM usage_days") == [(count + 1, 0)]
    assert exit_.rows("SELECT bytes_in, bytes_millicents FROM invoice_lines") == [(count + 1, count + 1)]
    assert exit_.rows("SELECT bytes_used FROM accounts") == [(count + 1,)]
    assert await verified(exit_, ada)


@on_exit(A_BYTE)
async def test_no_cell_is_a_float(exit_: ExitUnderTest) -> None:
    """After large counts, over a month's end and to the session's end, every cell is an integer, text, null or blob."""
    ada, bob = await exit_.client(), await exit_.client("bob", Tier.FREE)
    exit_.clock.wall_ms = OCTOBER - 333
    paid, free = await ada.open(), await bob.open()
    await move(exit_, free, rx=INEXACT)
    await move(exit_, paid, rx=INEXACT, tx=2**62 + 1)
    exit_.tunnel.add_traffic(exit_.key_of(paid["id"]), rx=1, handshake_ns=OCTOBER * 10**6 + 1)
    await exit_.tick(after=1)
    await ada.delete(paid["id"])
    assert exit_.rows("SELECT count(DISTINCT month), sum(bytes_in), sum(bytes_out) FROM invoice_lines") == [
        (2, INEXACT + 1, 2**62 + 1)
    ]
    assert exit_.rows("SELECT handshake_seen_ns FROM sessions WHERE tier = 'paid'") == [(OCTOBER * 10**6 + 1,)]
    assert kinds(exit_.path) == {"integer", "text", "null", "blob"}
    assert [await verified(exit_, ada, month) for month in ("2026-09", "2026-10")]


@on_exit(A_BYTE)
async def test_a_full_total_stays_full(exit_: ExitUnderTest) -> None:
    """A total that is full stays full, nothing fails, and another session of the account is counted as before."""
    ada = await exit_.client()
    full, other = await ada.open(), await ada.open()
    await move(exit_, full, rx=MOST - 1)
    await move(exit_, full, rx=5, tx=7)
    assert await shown(ada, full, "bytes_in", "bytes_out", "quota_bytes_used") == (MOST, 7, MOST)
    await move(exit_, full, rx=2**63 - 4, tx=1)  # 2^64 - 1 received, where the kernel's counters end
    await move(exit_, other, rx=11)
    assert await shown(ada, full, "bytes_in", "bytes_out", "quota_bytes_used") == (MOST, 8, MOST)
    assert await shown(ada, other, "bytes_in", "quota_bytes_used") == (11, MOST)
    assert exit_.parts.ticker.failed_ticks == 0
    assert sum(line.charge.bytes_in for line in await verified(exit_, ada)) == MOST + 11


@on_exit(A_BYTE)
async def test_what_a_full_total_does_not_take_is_billed_in_no_later_month(exit_: ExitUnderTest) -> None:
    """A peer that is added afresh counts from zero; what a full total does not take, no later month's line does."""
    ada = await exit_.client()
    exit_.clock.wall_ms = OCTOBER - 5000
    session = await ada.open()
    await move(exit_, session, rx=MOST, tx=MOST - 10)
    exit_.tunnel.vanish()
    await exit_.tick(after=5)
    await move(exit_, session, rx=100, tx=100)
    assert await shown(ada, session, "bytes_in", "bytes_out") == (MOST, MOST)
    both = [(MOST, MOST - 10), (0, 10)]
    assert exit_.rows("SELECT bytes_in, bytes_out FROM usage_days ORDER BY day") == both
    assert exit_.rows("SELECT bytes_in, bytes_out FROM invoice_lines ORDER BY month") == both
    assert exit_.parts.node.health.fault is None
    assert [await verified(exit_, ada, month) for month in ("2026-09", "2026-10")]
    final = await ada.delete(session["id"])
    assert (final.status_code, final.json()["bytes_in"]) == (200, MOST)


@on_exit(UNMETERED)
async def test_window_of_two_sessions(exit_: ExitUnderTest) -> None:
    """What two sessions moved stands in the account's window to the byte, and stays at the most that can be stored."""
    bob = await exit_.client("bob", Tier.FREE)
    one, other = await bob.open(), await bob.open()
    await move(exit_, one, rx=INEXACT, tx=2**61)
    await move(exit_, other, tx=INEXACT + 1)
    assert (await bob.get("/v1/usage")).json()["bytes_used"] == 2**61 + 2 * INEXACT + 1
    await move(exit_, one, rx=2**62)
    await move(exit_, other, rx=2**62)
    assert (await bob.get("/v1/usage")).json()["bytes_used"] == MOST
    assert exit_.rows("SELECT bytes_used FROM accounts") == [(MOST,)]


@on_exit(LARGEST_LIMIT)
async def test_the_largest_limit_holds_to_the_byte(exit_: ExitUnderTest) -> None:
    """A limit of 2^63 - 1 bytes holds: one byte below it the session goes on, at it it ends, and 402 shows it whole."""
    bob = await exit_.client("bob", Tier.FREE)
    session = await bob.open()
    await move(exit_, session, rx=MOST - 1)
    assert exit_.state_of(session["id"]) == ("live", None)
    await move(exit_, session, tx=1)
    assert exit_.state_of(session["id"]) == ("terminated", "quota_exceeded")
    refused = await bob.post()
    assert refused.status_code == 402
    assert f'"bytes_used":{MOST},"bytes_limit":{MOST},' in refused.text


@on_exit(DEAR)
async def test_a_cost_past_the_largest_stays_there_and_its_lines_add_up(exit_: ExitUnderTest) -> None:
    """A cost past what the store holds stays at that, in the API and on the invoice, and its lines still add up."""
    ada = await exit_.client()
    session = await ada.connect()
    await move(exit_, session, rx=GIB - 1)
    exact = (GIB - 1) * MOST // GIB
    assert await shown(ada, session, "cost_bytes_millicents", "cost_time_millicents") == (exact, MOST // 60)
    await move(exit_, session, rx=5 * GIB)
    exit_.clock.advance(119)
    assert await shown(ada, session, "cost_bytes_millicents", "cost_time_millicents") == (MOST, MOST)
    final = (await ada.delete(session["id"])).json()
    (line,) = await verified(exit_, ada)
    assert (line.charge.time_millicents, line.charge.bytes_millicents) == (MOST, MOST)
    assert (final["cost_time_millicents"], final["cost_bytes_millicents"]) == (MOST, MOST)
    assert exit_.parts.ticker.failed_ticks == 0


@on_exit(A_BYTE.replace(str(GIB), "1000"))
async def test_the_api_and_the_invoice_agree(exit_: ExitUnderTest) -> None:
    """The cost of more bytes than fit one counter is the same in the API and on the invoice."""
    ada = await exit_.client()
    session = await ada.open()
    await move(exit_, session, rx=MOST, tx=MOST)
    (line,) = await verified(exit_, ada)
    exact = 17_179_869_183_999  # (2^64 - 2) x 1000 / 2^30, rounded down
    assert await shown(ada, session, "cost_bytes_millicents") == (exact,)
    assert line.charge.bytes_millicents == exact


@on_exit(UNMETERED.replace("]", ']\nbytes_window = "1m"', 1))
async def test_full_across_a_reset(exit_: ExitUnderTest) -> None:
    """More bytes than the store holds, the most of them after the window's end, fill the new window and no more."""
    bob = await exit_.client("bob", Tier.FREE)
    session = await bob.open()
    exit_.clock.advance(58)
    await move(exit_, session, rx=1)
    exit_.tunnel.add_traffic(exit_.key_of(session["id"]), rx=MOST - 1, tx=MOST)
    await exit_.tick(after=60)
    assert exit_.rows("SELECT bytes_used FROM accounts") == [(MOST,)]
    assert exit_.parts.ticker.failed_ticks == 0
