"""Words whether an invoice over the exits of a fleet is complete, and who may still report something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from appliance.cli import kept_accounts, output
from appliance.domain.charges import month_bounds
from appliance.domain.clock import rfc3339
from appliance.domain.errors import Conflict
from appliance.domain.fleet_invoice import unreported
from appliance.store.queries import fleet_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiosqlite

    from appliance.cli.admin import Admin
    from appliance.domain.fleet_invoice import ReportingExit
    from appliance.metering.fleet_invoices import FleetInvoice


class Completeness(NamedTuple):
    """Tells whether a month is over, and who may still report use of it."""

    month: str
    over: bool
    missing: Sequence[ReportingExit]

    @property
    def complete(self) -> bool:
        return self.over and not self.missing

    def __str__(self) -> str:
        if self.complete:
            return "complete"
        if not self.over:
            return f"provisional: {self.month} is not over"
        return f"provisional: {_names(self.missing)}"

    def fields(self) -> dict[str, Any]:
        """Returns members of the invoice as JSON. `provisional`: the exits that may still report something."""
        exits = [{"exit": e.name, "region": e.region, "reported_until": _until(e)} for e in self.missing]
        return {"complete": self.complete, "provisional": exits}


def _until(each: ReportingExit) -> str | None:
    return output.rfc3339(each.upto or None)


def _names(exits: Sequence[ReportingExit]) -> str:
    return ", ".join(
        f"{each.name} last reported {rfc3339(each.upto)[:16].replace('T', ' ')}"
        if each.upto
        else f"{each.name} has not reported yet"
        for each in exits
    )


def completeness(month: str, invoice: FleetInvoice, now_ms: int) -> Completeness:
    return Completeness(month, _is_over(month, now_ms), unreported(invoice.exits, month))


def require_final(month: str, invoice: FleetInvoice | None, now_ms: int) -> None:
    """Raises Conflict if lines of the month may still change. A single host's are complete once it is over."""
    missing = () if invoice is None else unreported(invoice.exits, month)
    found = Completeness(month, _is_over(month, now_ms), missing)
    if not found.complete:
        raise Conflict(f"the invoice is {found}")


def _is_over(month: str, now_ms: int) -> bool:
    _, month_ends = month_bounds(month)
    return now_ms >= month_ends


async def require_here(a: Admin, db: aiosqlite.Connection) -> None:
    """Raises Conflict if invoices are made on another host."""
    host = await fleet_state.kept_on(db)
    if host is not None:
        lost = await kept_accounts.if_lost(a, db, host)
        raise Conflict(f"invoices are made on {host}, which has the reports of all exits: run this command there{lost}")
