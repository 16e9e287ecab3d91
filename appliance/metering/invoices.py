"""Reads an account's invoice as it is now: what is stored, and what runs since."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from appliance.domain import accounting, bill
from appliance.domain.fleet_invoice import within_month
from appliance.domain.tiers import Tier
from appliance.store.queries import invoices
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import aiosqlite

    from appliance.domain.bill import Bill
    from appliance.domain.charges import Amount
    from appliance.domain.clock import Clock
    from appliance.domain.entities import Account
    from appliance.domain.invoice import Line


class Invoice(NamedTuple):
    """Holds an account's invoice for a month. `running`: the bills of its sessions that have not ended, by id."""

    account_id: str
    month: str
    lines: Sequence[Line]
    running: Mapping[str, Bill]


async def read(db: aiosqlite.Connection, account: Account, month: str, clock: Clock) -> Invoice:
    """Returns the invoice as it would be, had all sessions been counted now. To be called in one snapshot."""
    running = await _running(db, account.id, clock)
    stored = [line for line in await invoices.lines(db, account.id, month) if line.session_id not in running]
    current = [line for each in running.values() for line in each.lines.values() if line.month == month]
    lines = sorted([*stored, *current], key=lambda line: (line.started_at, line.session_id))
    return Invoice(account.id, month, [within_month(line, clock.now().wall_ms) for line in lines], running)


async def days(db: aiosqlite.Connection, invoice: Invoice) -> dict[str, Sequence[tuple[str, Amount]]]:
    """Returns all daily totals of the sessions with a line or daily totals in the invoice's month, by session id."""
    moved = await invoices.sessions_of_month(db, invoice.account_id, invoice.month)
    moved += [session_id for session_id, each in invoice.running.items() if _has(each, invoice.month)]
    stored = await invoices.bills(db, (session_id for session_id in moved if session_id not in invoice.running))
    return {session_id: (invoice.running.get(session_id) or stored[session_id]).days for session_id in moved}


def _has(one: Bill, month: str) -> bool:
    return any(day.startswith(month) for day, _ in one.days)


async def _running(db: aiosqlite.Connection, account_id: str, clock: Clock) -> dict[str, Bill]:
    paid = [s for s in await rows.unfinished_of(db, account_id) if s.tier is Tier.PAID]
    heartbeat = (await node_row.read(db)).heartbeat
    readings = accounting.uncounted(paid, heartbeat, clock.now())
    bills = await invoices.bills(db, {reading.after.id for reading in readings})
    for reading in readings:
        bills[reading.after.id] = bill.with_reading(bills[reading.after.id], reading)
    return bills
