"""Prints results to stdout, as JSON or as plain aligned columns, and remarks to stderr."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

from appliance.cli import table
from appliance.cli.os_errors import host_faults
from appliance.cli.parameters import LIMIT
from appliance.client.humanize import size as size  # what is printed has its words from here
from appliance.client.humanize import span as span
from appliance.client.terminal import json_text, printable
from appliance.domain import clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NEWEST = 50

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
limit_option = click.option(
    "--limit", type=LIMIT, metavar="N", help="List the newest N; 0: all; default: 50 on a terminal, else all."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def write(text: str) -> None:
    """Prints a result of one or more lines. Unprintable characters are escaped."""
    encoding = getattr(sys.stdout, "encoding", None)
    write_as_it_is("\n".join(printable(line, encoding) for line in text.split("\n")))


def write_as_it_is(text: str) -> None:
    """Prints text that may contain the program's own terminal escapes."""
    with host_faults("cannot write the result"):
        click.echo(text)


def write_json(value: object) -> None:
    write(json_text(value, indent=2))


def remark(text: str) -> None:
    """Prints one line to stderr."""
    click.echo(printable(text, getattr(sys.stderr, "encoding", None)), err=True)


def write_table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], empty: str, spare: Sequence[str] = ()
) -> None:
    """Prints columns, two spaces between them; without rows, the remark `empty` instead.

    On a terminal a table fits its width: those of the columns `spare` that have no room beside the others are left
    out, and the widest of the others are cut.
    """
    lines = [list(headings), *([printable(str(cell)) for cell in row] for row in rows)]
    if len(lines) == 1:
        remark(empty)
        return
    write("\n".join(table.rows(lines, _width(), spare)))


def write_item(head: str, text: str, mend: str = "") -> None:
    """Prints one result with what it is about to the left, and behind it the command that mends it.

    On a terminal, what does not fit is broken between words.
    """
    lines = table.hanging(printable(head), printable(text), printable(mend), _width())
    write("\n".join(lines))


def _width() -> int | None:
    """Returns the columns of the terminal that stdout is; None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def newest(count: int | None, *, as_json: bool) -> int:
    """Returns how many objects a list shows, 0 for all. `count`: as asked for; None: NEWEST in a terminal's table."""
    if count is not None:
        return count
    return NEWEST if sys.stdout.isatty() and not as_json else 0


def cut(shown: int, limit: int, what: str) -> None:
    """Remarks that a list is only the newest part of what there is. `shown`: of which one more was asked for."""
    if limit and shown > limit:
        remark(f"the newest {limit} {what}; --limit 0 lists all")


def confirm(question: str, *, yes: bool) -> None:
    """Asks on a terminal, and ends the command unless it is answered with yes. A script is not asked."""
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)


def write_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Prints one object, one field per line."""
    width = max(len(printable(name)) for name, _ in fields)
    write("\n".join(f"{printable(name):<{width}}  {printable(str(value))}".rstrip() for name, value in fields))


def rfc3339_end(ms: int) -> str:
    return clock.rfc3339_end(ms)


def rfc3339(ms: int | None) -> str | None:
    return None if ms is None else clock.rfc3339(ms)


def ago(ms: int | None, now: int) -> str:
    return "never" if ms is None else f"{span(now - ms)} ago"
