"""Compares this exit's invoice lines with what a hub has of them, and with its own daily totals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.entities import Account
from appliance.domain.errors import InvalidRequest
from appliance.domain.invoice import differences
from appliance.domain.tiers import Tier
from appliance.fleet.reports.epochs import reported
from appliance.fleet.reports.own_reports import facts
from appliance.fleet.rpc.operations import OperationDone
from appliance.metering import invoices
from appliance.store.queries import fleet_reports
from appliance.store.queries import invoices as rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import aiosqlite

    from appliance.domain.charges import Charge
    from appliance.domain.clock import Clock
    from appliance.fleet.rpc.operations import VerifyLines
    from appliance.store.database import Store

NAMED = 3  # sessions, in an answer that has to be short


class LinesVerifier:
    """Answers hubs. `is_hub`: whether an exit is one."""

    def __init__(self, store: Store, clock: Clock, is_hub: Callable[[str], bool]) -> None:
        self._store = store
        self._clock = clock
        self._is_hub = is_hub

    async def verify(self, sender: str, asked: VerifyLines) -> OperationDone:
        """Answers if all is the same. Raises InvalidRequest with what differs; StoreUnavailable."""
        if not self._is_hub(sender):
            raise InvalidRequest("only a hub may compare invoice lines")
        async with self._store.snapshot() as db:
            wrong = [] if asked.after else await self._unlike_days(db, asked)
            if wrong:
                raise InvalidRequest(
                    _counted(wrong, "does not agree with its daily totals", "do not agree with theirs")
                )
            known, untold = await _reported(db, asked)
        told = {line.session_id: line.charge for line in asked.lines}
        sessions = sorted((known.keys() | told.keys()) - untold)
        differing = [each for each in sessions if known.get(each) != told.get(each)]
        if differing:
            raise InvalidRequest(_counted(differing, "differs from what the hub has", "differ from what the hub has"))
        return OperationDone()

    async def _unlike_days(self, db: aiosqlite.Connection, asked: VerifyLines) -> list[str]:
        account = Account(asked.account_id, "", Tier.PAID, disabled=False, created_at=0)
        invoice = await invoices.read(db, account, asked.month, self._clock)
        rates = await rows.rates(db, [line.session_id for line in invoice.lines])
        found = differences(asked.month, invoice.lines, await invoices.days(db, invoice), rates)
        return [each.partition(":")[0].partition(" ")[0] for each in found]


async def _reported(db: aiosqlite.Connection, asked: VerifyLines) -> tuple[Mapping[str, Charge], set[str]]:
    """Returns what was told of the lines, by session, and the sessions of which something is to be told still."""
    ended = {
        line.session_id
        for line in await rows.lines(db, asked.account_id, asked.month)
        if line.ended_at is not None
        and line.ended_at <= asked.upto
        and asked.after < line.session_id
        and (not asked.until or line.session_id <= asked.until)
    }
    noted = await fleet_reports.by_ids(db, ended | {line.session_id for line in asked.lines})
    found = {}
    for each in await facts(db, list(noted.values())):
        lines = reported(each.basis, each.own.totals).lines
        if asked.month in lines:
            found[each.row.session_id] = lines[asked.month]
    return found, {session_id for session_id, row in noted.items() if row.v > row.sent}


def _counted(sessions: list[str], one: str, several: str) -> str:
    names = ", ".join(sessions[:NAMED]) + (", …" if len(sessions) > NAMED else "")
    return f"1 line {one}: {names}" if len(sessions) == 1 else f"{len(sessions)} lines {several}: {names}"
