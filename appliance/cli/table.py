"""Lays out tables: columns as wide as their cells, or as a terminal has room for. Pure."""

from __future__ import annotations

import textwrap
import unicodedata
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GAP = "  "
NARROWEST = 5
NARROWEST_FIRST = 12  # of the first column: what is left of an id names one
CUT = "~"
ARROW = " -> "
NARROWEST_TEXT = 20  # columns beside a head


def rows(lines: Sequence[Sequence[str]], width: int | None, spare: Sequence[str] = ()) -> Iterator[str]:
    """Yields the lines of a table, the headings first. `width`: of the terminal; None: as wide as it takes.

    `spare`: headings of columns to leave out, in this order, for as long as the others have to be cut.
    """
    widths = [max(map(columns, column)) for column in zip_longest(*lines, fillvalue="")]
    if width is not None:
        lines, widths = _without(lines, widths, width, spare)
        widths = fitted(widths, width - len(GAP) * (len(widths) - 1))
    for line in lines:
        yield GAP.join(_cell(text, size) for text, size in zip(line, widths, strict=False)).rstrip()


def _without(
    lines: Sequence[Sequence[str]], widths: Sequence[int], width: int, spare: Sequence[str]
) -> tuple[Sequence[Sequence[str]], list[int]]:
    """Returns the table without the spare columns for which there is no room, and its widths."""
    kept = list(range(len(widths)))
    for heading in spare:
        # The first column can be cut without a loss.
        needed = sum(widths[i] for i in kept[1:]) + min(widths[0], NARROWEST_FIRST) + len(GAP) * (len(kept) - 1)
        if needed > width:
            kept.remove(list(lines[0]).index(heading))
    return [[line[i] for i in kept] for line in lines], [widths[i] for i in kept]


def fitted(widths: Sequence[int], room: int) -> list[int]:
    """Returns the widths of columns, the widest ones cut until all fit; none below its least width for that."""
    found = list(widths)
    least = [NARROWEST_FIRST, *(NARROWEST for _ in found[1:])]
    while sum(found) > room and (cuttable := [i for i, size in enumerate(found) if size > least[i]]):
        widest = max(cuttable, key=found.__getitem__)
        second = max([least[widest], *(found[i] for i in cuttable if found[i] < found[widest])])
        found[widest] = max(second, found[widest] - (sum(found) - room), least[widest])
    return found


def hanging(head: str, text: str, mend: str, width: int | None) -> Iterator[str]:
    """Yields `head`, `text` and the command that mends it: in one line, or in lines of `width` right of the head.

    The command stays in one line, which a terminal breaks as it likes: so it can be copied.
    """
    whole = f"{head}{text}{ARROW}{mend}" if mend else f"{head}{text}"
    room = 0 if width is None else width - columns(head)
    if width is None or columns(whole) <= width or room < NARROWEST_TEXT:
        yield whole
        return
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        yield f"{head if number == 0 else ' ' * columns(head)}{line}"
    if mend:
        yield f"{' ' * columns(head)}{ARROW.lstrip()}{mend}"


def columns(text: str) -> int:
    """Returns how many columns a text takes in a terminal: East Asian letters take two, marks on others none."""
    return sum(map(_columns, text))


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _cell(text: str, size: int) -> str:
    taken = columns(text)
    if taken > size:
        kept = ""
        while columns(kept) + _columns(text[len(kept)]) < size:
            kept += text[len(kept)]
        text, taken = kept + CUT, columns(kept) + len(CUT)
    return text + " " * (size - taken)
