"""Implements `wg-appliance invoice`."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import click

from appliance.cli import admin, output
from appliance.cli.parameters import NAME, Month
from appliance.domain.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import aiosqlite

    from appliance.cli.admin import Admin
    from appliance.domain.clock import Clock
    from appliance.domain.entities import Account
    from appliance.domain.invoice import Line, Total
    from appliance.metering.invoices import Invoice

CURRENCY_UNIT = 100_000  # millicents
OF_PRICES = ("TIME", "TRAFFIC", "CURRENCY")  # columns that are empty where no price is set


@click.command()
@click.argument("name", type=NAME, metavar="NAME|ID")
@click.option("--month", type=Month(), required=True, help="Such as 2026-11 (UTC).")
@click.option("--format", "shape", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True)
@click.option("--verify", is_flag=True, help="Recalculate every line from the daily totals; fail on a difference.")
@output.json_option
@click.pass_obj
def invoice(config_file: Path | None, name: str, month: str, shape: str, verify: bool, as_json: bool) -> None:
    """Show an account's paid sessions of a month, one line per session, up to now.

    Its seconds are those in which its tunnel could carry: see `wg-appliance help prices`.
    """
    from appliance.domain.invoice import totals

    if as_json and shape == "csv":
        raise click.UsageError("--json and --format csv exclude each other")
    account, lines = admin.run(config_file, lambda a: _read(a, name, month, verify=verify))
    if verify:
        agree = "1 line agrees" if len(lines) == 1 else f"{len(lines)} lines agree"
        output.remark(f"verified: {agree} with the daily totals")
    if as_json or shape == "json":
        output.write_json(
            {
                "account": account.name,
                "account_id": account.id,
                "month": month,
                "lines": [_fields(line) for line in lines],
                "totals": [_total(total) for total in totals(lines)],
            }
        )
    elif shape == "csv":
        output.write(_csv(lines))
    else:
        _write_text(lines, totals(lines), month)


async def _read(a: Admin, name: str, month: str, *, verify: bool) -> tuple[Account, Sequence[Line]]:
    """Reads the invoice. Raises NotFound for an unknown name. Raises Conflict if the name is ambiguous, or the lines
    differ from the daily totals."""
    # One snapshot for lines and days: the server may count meanwhile.
    async with a.store.snapshot() as db:
        account, found = await _find(db, name, month, a.clock)
        if verify:
            await _verify(db, account, found)
    return account, found.lines


async def _find(db: aiosqlite.Connection, name: str, month: str, clock: Clock) -> tuple[Account, Invoice]:
    """Finds the account that the invoice is for: a deleted account's name may be reused, its debts stay its own."""
    from appliance.metering import invoices
    from appliance.store.queries import accounts

    called = await accounts.ever_called(db, name)
    if not called:
        raise NotFound(f"no account {name}; wg-appliance account list shows them")
    read = [(account, await invoices.read(db, account, month, clock)) for account in called]
    billed = [(account, found) for account, found in read if found.lines]
    if len(billed) > 1:
        ids = ", ".join(account.id for account, _ in billed)
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


def _csv(lines: Sequence[Line]) -> str:
    """Formats lines as CSV (RFC 4180), with a heading even without lines. No totals: the reader can sum up."""
    headings = ["id", "start", "end", "seconds", "bytes_in", "bytes_out", "bytes"]
    headings += ["time_millicents", "bytes_millicents", "currency"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, headings, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_fields(line) for line in lines)
    return text.getvalue().rstrip("\n")


def _write_text(lines: Sequence[Line], totals: Sequence[Total], month: str) -> None:
    cells = [
        (
            line.session_id,
            output.rfc3339(line.started_at),
            output.rfc3339(line.ended_at) or "running",
            line.charge.seconds,
            line.charge.total_bytes,
            _money(line.charge.time_millicents),
            _money(line.charge.bytes_millicents),
            "-" if line.rates is None else line.rates.currency,
        )
        for line in lines
    ]
    sums = [
        (
            "total",
            "",
            "",
            total.seconds,
            total.total_bytes,
            _money(_priced(total, total.time_millicents)),
            _money(_priced(total, total.bytes_millicents)),
            total.currency or "-",
        )
        for total in totals
    ]
    output.write_table(
        ("SESSION", "START", "END", "SECONDS", "BYTES", *OF_PRICES),
        [*cells, *sums],
        f"no paid sessions in {month}",
        () if any(line.rates for line in lines) else OF_PRICES,
    )
    if lines:
        output.write("SECONDS: in which the tunnel could carry, of the time from START to END")
    for total in totals:
        if total.currency is not None:
            output.write(f"to pay: {_money(total.millicents)} {total.currency}")


def _money(millicents: int | None) -> str:
    """Formats units of the currency with all five decimals of a millicent."""
    return "-" if millicents is None else f"{millicents // CURRENCY_UNIT}.{millicents % CURRENCY_UNIT:05d}"
