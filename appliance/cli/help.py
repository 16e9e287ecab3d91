"""Implements `wg-appliance help`: prints the pages of appliance/docs in a terminal."""

from __future__ import annotations

import difflib
import re
import shutil
import sys
import textwrap
from importlib import resources
from itertools import takewhile
from typing import TYPE_CHECKING

import click

from appliance.cli import output
from appliance.client.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDEST = 100
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
CODE = re.compile(r"`([^`]+)`")
STRONG = re.compile(r"\*\*([^*]+)\*\*")
CELL = re.compile(r"(?<!\\)\|")
ITEM = re.compile(r"- ")
SENTENCE = re.compile(r"(?<=[.:])\s")
GAP = "  "


class Topic(click.ParamType):  # type: ignore[type-arg]  # no generic class before click 8.4
    """Accepts the name of a page."""

    name = "topic"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        known = topics()
        if value in known:
            return value
        near = difflib.get_close_matches(value, known, 1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        return self.fail(f"no topic {value!r}.{meant} Topics: {', '.join(known)}.", param, ctx)


@click.command("help")
@click.argument("topic", type=Topic(), required=False)
def help_(topic: str | None) -> None:
    """Print the page on TOPIC; without TOPIC, list the topics."""
    if topic is None:
        width = max(map(len, topics()))
        lines = [f"{name:<{width}}{GAP}{summary(read(name))}" for name in topics()]
        output.write("\n".join(["Topics, each printed by wg-appliance help TOPIC:", "", *lines]))
        return
    text = plain(read(topic), min(shutil.get_terminal_size().columns, WIDEST))
    if sys.stdout.isatty():
        encoding = sys.stdout.encoding
        click.echo_via_pager("\n".join(printable(line, encoding) for line in text.split("\n")))
    else:
        output.write(text.rstrip("\n"))


def topics() -> list[str]:
    folder = resources.files("appliance") / "docs"
    return sorted(file.name.removesuffix(".md") for file in folder.iterdir() if file.name.endswith(".md"))


def read(topic: str) -> str:
    return (resources.files("appliance") / "docs" / f"{topic}.md").read_text(encoding="utf-8")


def summary(page: str) -> str:
    """Returns the first sentence of a page."""
    first = " ".join(page.split("\n\n", 2)[1].split())
    return _words(SENTENCE.split(first)[0]).rstrip(":.") + "."


def plain(page: str, width: int) -> str:
    """Formats a page as text of this width: the part of Markdown that the pages use. Code blocks stay as they are."""
    return "\n".join(_blocks(page.splitlines(), width)) + "\n"


def _blocks(lines: Sequence[str], width: int) -> Iterator[str]:
    index = 0
    while index < len(lines):
        line = lines[index]
        if line.startswith("```"):
            code = list(takewhile(lambda each: not each.startswith("```"), lines[index + 1 :]))
            yield from (f"    {each}".rstrip() for each in code)
            index += len(code) + 2
        elif line.startswith("|"):
            rows = list(takewhile(lambda each: each.startswith("|"), lines[index:]))
            yield from _table(rows, width)
            index += len(rows)
        elif line.startswith("#"):
            yield line.lstrip("# ").upper()
            index += 1
        elif not line:
            yield ""
            index += 1
        else:
            more = list(takewhile(_continues, lines[index + 1 :]))
            yield from _wrapped(" ".join([line, *(each.strip() for each in more)]), width)
            index += 1 + len(more)


def _continues(line: str) -> bool:
    """Tells whether a line belongs to the same paragraph or list item as the line before."""
    return bool(line) and not line.startswith(("```", "|", "#")) and not ITEM.match(line)


def _wrapped(text: str, width: int, first: str = "", later: str | None = None) -> list[str]:
    indent = (GAP if ITEM.match(text) else "") if later is None else later
    return textwrap.wrap(
        _words(text),
        width,
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(rows: Sequence[str], width: int) -> Iterator[str]:
    """Formats a table. The last column is wrapped; if the others leave it too little width, on lines of its own."""
    cells = [[_words(cell.strip()) for cell in CELL.split(row)[1:-1]] for row in rows]
    del cells[1]  # the line of dashes below the headings
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in cells), strict=True)]
    before = sum(widths) + len(GAP) * len(widths)
    for row in cells if any(cells[0]) else cells[1:]:
        if before <= width // 2:
            start = "".join(cell.ljust(size) + GAP for cell, size in zip(row, widths, strict=False))
            yield from _wrapped(row[-1], width, start, " " * before) or [start.rstrip()]
        else:
            yield from _wrapped(GAP.join(row[:-1]), width)
            yield from _wrapped(row[-1], width, "    ", "    ")


def _words(text: str) -> str:
    """Removes the markup from a text. A link to a page becomes the command that prints it."""
    text = STRONG.sub(r"\1", LINK.sub(_target, text))
    return CODE.sub(r"\1", text).replace("\\|", "|")


def _target(link: re.Match[str]) -> str:
    topic = link[2].removesuffix(".md")
    return f"wg-appliance help {topic}" if topic == link[1] else f"{link[1]} ({link[2]})"
