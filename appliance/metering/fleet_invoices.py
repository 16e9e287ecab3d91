"""Reads on a hub an account's invoice over all exits of its fleet: own lines up to now, the others as reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from appliance.domain.fleet_invoice import ExitLine, ReportingExit, combined, within_month
from appliance.store.queries import fleet_fold, fleet_lines, fleet_members, fleet_reports

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiosqlite

    from appliance.metering.invoices import Invoice


class FleetInvoice(NamedTuple):
    """Holds the lines of all exits, and what each exit has reported, those that have left too.

    `own_node`: this host. `told`: the lines as reported, of this host too.
    """

    own_node: str
    lines: Sequence[ExitLine]
    exits: Sequence[ReportingExit]
    told: Sequence[ExitLine]


async def read(db: aiosqlite.Connection, own: Invoice, node: str, now_ms: int) -> FleetInvoice:
    """Adds the other exits' lines to those of this host, `node`. To be called in the snapshot that `own` is of."""
    told = await fleet_lines.of_account(db, own.account_id, own.month)
    adopted = await fleet_reports.adopted(db, [line.session_id for line in own.lines])
    lines = combined(node, own.lines, told, adopted)
    upto = await fleet_fold.reported_until(db)
    members = await fleet_members.everyone(db)
    exits = [ReportingExit(m.id, m.name, m.region, upto.get(m.id, 0), m.left_at is None) for m in members]
    shown = [ExitLine(each.node, within_month(each.line, now_ms)) for each in lines]
    return FleetInvoice(node, shown, exits, told)
