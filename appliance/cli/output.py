"""Prints results to stdout, as JSON or as plain aligned columns, and remarks to stderr."""

from __future__ import annotations

import sys
from itertools import zip_longest
from typing import TYPE_CHECKING

import click

from appliance.cli.os_errors import host_faults
from appliance.client.humanize import size as size  # what is printed has its words from here
from appliance.client.humanize import span as span
from appliance.client.terminal import json_text, printable
from appliance.domain import clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def write_table(headings: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Prints columns, two spaces between them; without rows, the remark `empty` instead."""
    lines = [headings, *([printable(str(cell)) for cell in row] for row in rows)]
    if len(lines) == 1:
        remark(empty)
        return
    widths = [max(map(len, column)) for column in zip_longest(*lines, fillvalue="")]
    write("\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines))


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
