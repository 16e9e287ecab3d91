"""Prints results to stdout, as JSON or as plain aligned columns, and remarks to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from itertools import islice
from typing import TYPE_CHECKING

import click

from appliance.cli import table
from appliance.cli.os_errors import host_faults
from appliance.cli.parameters import LIMIT
from appliance.client.humanize import size as size  # what is printed has its words from here
from appliance.client.humanize import span as span
from appliance.client.terminal import json_text, printable, without_del
from appliance.domain import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NEWEST = 50
PROMPT = 1  # lines below a QR code
AT_ONCE = 200  # members of a list, written together

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


def write_qr(text: str) -> None:
    """Draws text as a QR code, and remarks how large a terminal it takes if this one is too small to show it whole."""
    from appliance.client.ui import qr  # loads what few commands need

    terminal = sys.stdout.isatty()
    drawn = qr.draw(text, colour=terminal and not os.environ.get("NO_COLOR"))
    write_as_it_is(drawn)
    width, lines = qr.size(drawn)
    has = shutil.get_terminal_size()
    if terminal and (width > has.columns or lines + PROMPT > has.lines):
        remark(
            f"the code takes {width} columns and {lines + PROMPT} lines, this terminal has {has.columns} and "
            f"{has.lines}: enlarge the window, or make its letters smaller, until all of the code is seen"
        )


def write_json(value: object) -> None:
    write(json_text(value, indent=2))


def write_json_list(name: str, members: Iterable[str]) -> None:
    """Prints an object whose one field is a list, as `write_json` does, while its members come.

    They are JSON already, indented as `write_json` indents them.
    """
    rest, before, after = iter(members), f'{{\n  "{name}": [', "]\n}\n"
    while piece := ",\n".join(islice(rest, AT_ONCE)):
        _write_on(f"{before}\n{without_del(piece)}")
        before, after = ",", "\n  ]\n}\n"
    _write_on(after if before == "," else before + after)


def _write_on(text: str) -> None:
    """Prints a part of a result, which is printable, without ending the line."""
    with host_faults("cannot write the result"):
        click.echo(text, nl=False)


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
    found = [*rows]
    write_long_table(headings, lambda: [found], empty, spare)


def write_long_table(
    headings: Sequence[str],
    pages: Callable[[], Iterable[Sequence[Sequence[object]]]],
    empty: str,
    spare: Sequence[str] = (),
) -> None:
    """Prints a table as `write_table` does, of rows that come in pages, and come again if they are more than a page.

    The first time they are only measured, so that no more than a page of them is held. What is wider the second time
    is not cut.
    """
    widths, many, only = table.widened((), [headings]), 0, list[list[str]]()
    for page in pages():
        only = [*map(_cells, page)]
        widths, many = table.widened(widths, only), many + 1
    if not only:
        remark(empty)
        return
    layout = table.layout(headings, widths, _width(), spare)
    write(layout.line(headings))
    for lines in [only] if many == 1 else (map(_cells, page) for page in pages()):
        write("\n".join(map(layout.line, lines)))


def _cells(row: Sequence[object]) -> list[str]:
    return [printable(str(cell)) for cell in row]


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
