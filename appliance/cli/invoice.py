"""Implements `wg-appliance invoice`."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from appliance.cli import admin, output
from appliance.cli.parameters import NAME, Month
from appliance.domain.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import aiosqlite

    from appliance.cli.admin import Admin
    from appliance.cli.fleet_invoice import Completeness
    from appliance.domain.clock import Clock
    from appliance.domain.entities import Account
    from appliance.domain.invoice import Line, Total
    from appliance.metering.fleet_invoices import FleetInvoice
    from appliance.metering.invoices import Invoice

CURRENCY_UNIT = 100_000  # millicents
OF_PRICES = ("TIME", "TRAFFIC", "CURRENCY")  # columns that are empty where no price is set


@click.command()
@click.argument("name", type=NAME, metavar="NAME|ID")
@click.option("--month", type=Month(), required=True, help="Such as 2026-11 (UTC).")
@click.option("--format", "shape", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True)
@click.option(
    "--verify",
    is_flag=True,
    help="Recalculate every line from the daily totals; fail if one differs, or not all could be.",
)
@click.option("--final", is_flag=True, help="Fail if there may be more to come: the month, or an exit's report of it.")
@output.json_option
@click.pass_obj
def invoice(
    config_file: Path | None, name: str, month: str, shape: str, verify: bool, final: bool, as_json: bool
) -> None:
    """Show an account's paid sessions of a month, one line per session, up to now.

    Its seconds are those in which its tunnel could carry: see `wg-appliance help prices`.

    On the hub of a fleet: the sessions of all exits, as they have reported them, and whether that is complete. There
    --verify has each exit recalculate its lines too, and compare them with what the hub has.
    """
    from appliance.domain.invoice import totals

    if as_json and shape == "csv":
        raise click.UsageError("--json and --format csv exclude each other")
    found = admin.run(config_file, lambda a: _read(a, name, month, verify=verify, final=final))
    if verify:
        count = len(found.own.lines)
        agree = "1 line agrees" if count == 1 else f"{count} lines agree"
        here = "" if found.fleet is None else " here"
        output.remark(f"verified: {agree} with the daily totals{here}")
    sums = totals(found.lines)
    if as_json or shape == "json":
        output.write_json(
            {
                "account": found.account.name,
                "account_id": found.account.id,
                "month": month,
                "lines": [_fields(line) | where for line, where in found.rows],
                "totals": [_total(total) for total in sums],
                **({} if found.completeness is None else found.completeness.fields()),
            }
        )
    elif shape == "csv":
        output.write(_csv(found))
        if found.completeness is not None:
            output.remark(str(found.completeness))
    else:
        _write_text(found, sums, month)
        if found.completeness is not None:
            output.write(str(found.completeness))


class Billed(NamedTuple):
    """Holds an account's invoice. `fleet`, `completeness`: None outside a fleet."""

    account: Account
    own: Invoice
    fleet: FleetInvoice | None = None
    completeness: Completeness | None = None

    @property
    def lines(self) -> Sequence[Line]:
        return self.own.lines if self.fleet is None else [each.line for each in self.fleet.lines]

    @property
    def rows(self) -> Sequence[tuple[Line, dict[str, str]]]:
        """Returns the lines, each with the exit and region that it is of, where there are several."""
        if self.fleet is None:
            return [(line, {}) for line in self.own.lines]
        exits = {each.node: each for each in self.fleet.exits}
        where = {node: {"exit": each.name, "region": each.region} for node, each in exits.items()}
        return [(line, where.get(node, {"exit": node, "region": ""})) for node, line in self.fleet.lines]

    @property
    def untold(self) -> set[str]:
        """Returns the sessions of which no end will be told, as their exit has left the fleet or was forgotten."""
        if self.fleet is None:
            return set()
        present = {each.node for each in self.fleet.exits if each.present}
        return {line.session_id for node, line in self.fleet.lines if node not in present}


async def _read(a: Admin, name: str, month: str, *, verify: bool, final: bool) -> Billed:
    """Reads the invoice. Raises NotFound for an unknown name. Raises Conflict if the name is ambiguous, the lines
    differ from the daily totals, invoices are made on another host, or it is to be final and is not. Raises
    HostError if other exits were to compare their lines and have not."""
    from appliance.cli.fleet_invoice import completeness, require_final, require_here

    # One snapshot for lines and days: the server may count meanwhile.
    async with a.store.snapshot() as db:
        await require_here(a, db)
        found = await _find(db, name, month, a.clock)
        if verify:
            await _verify(db, found.account, found.own)
    if verify and found.fleet is not None:
        from appliance.cli.fleet import packages

        with packages():
            from appliance.cli import fleet_verifying

        await fleet_verifying.verify(a, found.account.id, month, found.fleet)
    now_ms = a.clock.now().wall_ms
    if final:
        require_final(month, found.fleet, now_ms)
    return found if found.fleet is None else found._replace(completeness=completeness(month, found.fleet, now_ms))


async def _find(db: aiosqlite.Connection, name: str, month: str, clock: Clock) -> Billed:
    """Finds the account that the invoice is for: a deleted account's name may be reused, its debts stay its own."""
    from appliance.metering import fleet_invoices, invoices
    from appliance.store.queries import accounts, fleet_state

    called = await accounts.ever_called(db, name)
    if not called:
        raise NotFound(f"no account {name}; wg-appliance account list shows them")
    row = await fleet_state.read(db)
    read = []
    for account in called:
        own = await invoices.read(db, account, month, clock)
        fleet = None if row is None else await fleet_invoices.read(db, own, row.node_id, clock.now().wall_ms)
        read.append(Billed(account, own, fleet))
    billed = [found for found in read if found.lines]
    if len(billed) > 1:
        ids = ", ".join(found.account.id for found in billed)
        raise Conflict(f"several accounts called {name} have an invoice for {month}; name one by its id: {ids}")
    return (billed or read)[0]


async def _verify(db: aiosqlite.Connection, account: Account, found: Invoice) -> None:
    from appliance.domain.invoice import differences
    from appliance.metering import invoices
    from appliance.store.queries.invoices import rates

    days = await invoices.days(db, found)
    known = await rates(db, [line.session_id for line in found.lines])
    wrong = differences(found.month, found.lines, days, known)
    if wrong:
        raise Conflict(
            f"the invoice of {account.name} for {found.month} does not agree with the days: {'; '.join(wrong)}"
        )


def _fields(line: Line) -> dict[str, Any]:
    charge = line.charge
    return {
        "id": line.session_id,
        "start": output.rfc3339(line.started_at),
        "end": output.rfc3339(line.ended_at),
        "seconds": charge.seconds,
        "bytes_in": charge.bytes_in,
        "bytes_out": charge.bytes_out,
        "bytes": charge.total_bytes,
        "time_millicents": charge.time_millicents,
        "bytes_millicents": charge.bytes_millicents,
        "currency": None if line.rates is None else line.rates.currency,
    }


def _total(total: Total) -> dict[str, Any]:
    return {
        "currency": total.currency,
        "seconds": total.seconds,
        "bytes": total.total_bytes,
        "time_millicents": _priced(total, total.time_millicents),
        "bytes_millicents": _priced(total, total.bytes_millicents),
        "millicents": _priced(total, total.millicents),
    }


def _priced(total: Total, millicents: int) -> int | None:
    """Returns None if no price was configured."""
    return None if total.currency is None else millicents


def _csv(found: Billed) -> str:
    """Formats lines as CSV (RFC 4180), with a heading even without lines. No totals: the reader can sum up."""
    headings = ["id", "start", "end", "seconds", "bytes_in", "bytes_out", "bytes"]
    headings += ["time_millicents", "bytes_millicents", "currency"]
    headings += [] if found.fleet is None else ["exit", "region"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, headings, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_fields(line) | where for line, where in found.rows)
    return text.getvalue().rstrip("\n")


def _write_text(found: Billed, totals: Sequence[Total], month: str) -> None:
    several = () if found.fleet is None else ("EXIT", "REGION")
    untold = found.untold
    sums = [(*_cells_of(total), *("" for _ in several)) for total in totals]
    output.write_table(
        ("SESSION", "START", "END", "SECONDS", "BYTES", *OF_PRICES, *several),
        [*((*_cells(line, told=line.session_id not in untold), *where.values()) for line, where in found.rows), *sums],
        f"no paid sessions in {month}",
        () if any(line.rates for line in found.lines) else OF_PRICES,
    )
    if found.lines:
        output.write("SECONDS: in which the tunnel could carry, of the time from START to END")
    for total in totals:
        if total.currency is not None:
            output.write(f"to pay: {_money(total.millicents)} {total.currency}")


def _cells(line: Line, *, told: bool) -> tuple[object, ...]:
    return (
        line.session_id,
        output.rfc3339(line.started_at),
        output.rfc3339(line.ended_at) or ("running" if told else "not told"),
        line.charge.seconds,
        line.charge.total_bytes,
        _money(line.charge.time_millicents),
        _money(line.charge.bytes_millicents),
        "-" if line.rates is None else line.rates.currency,
    )


def _cells_of(total: Total) -> tuple[object, ...]:
    return (
        "total",
        "",
        "",
        total.seconds,
        total.total_bytes,
        _money(_priced(total, total.time_millicents)),
        _money(_priced(total, total.bytes_millicents)),
        total.currency or "-",
    )


def _money(millicents: int | None) -> str:
    """Formats units of the currency with all five decimals of a millicent."""
    return "-" if millicents is None else f"{millicents // CURRENCY_UNIT}.{millicents % CURRENCY_UNIT:05d}"
