"""Lays out tables: columns as wide as their cells, or as a terminal has room for. Pure."""

from __future__ import annotations

import textwrap
import unicodedata
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

GAP = "  "
NARROWEST = 5
NARROWEST_FIRST = 12  # of the first column: what is left of an id names one
CUT = "~"
ARROW = " -> "
NARROWEST_TEXT = 20  # columns beside a head


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Places cells: those of the columns `kept`, in so many columns of the terminal each."""

    kept: Sequence[int]
    sizes: Sequence[int]
    cuts: bool  # cells that are wider; else they push what is right of them

    def line(self, cells: Sequence[str]) -> str:
        placed = zip((cells[i] for i in self.kept), self.sizes, strict=True)
        return GAP.join(_cell(text, size, cuts=self.cuts) for text, size in placed).rstrip()


def rows(lines: Sequence[Sequence[str]], width: int | None, spare: Sequence[str] = ()) -> Iterator[str]:
    """Yields the lines of a table, the headings first, laid out as `layout` does."""
    return map(layout(lines[0], widened((), lines), width, spare).line, lines)


def widened(widths: Sequence[int], lines: Iterable[Sequence[str]]) -> list[int]:
    """Returns the widths of columns that take further lines, too."""
    found = list(widths)
    for line in lines:
        found = [max(pair) for pair in zip_longest(found, map(columns, line), fillvalue=0)]
    return found


def layout(headings: Sequence[str], widths: Sequence[int], width: int | None, spare: Sequence[str] = ()) -> TableLayout:
    """Returns the layout of a table. `width`: of the terminal; None: as wide as it takes.

    `spare`: headings of columns to leave out, in this order, for as long as the others have to be cut.
    """
    if width is None:
        return TableLayout(range(len(widths)), widths, cuts=False)
    kept = _without_spare(headings, widths, width, spare)
    room = width - len(GAP) * (len(kept) - 1)
    return TableLayout(kept, fitted([widths[i] for i in kept], room), cuts=True)


def _without_spare(headings: Sequence[str], widths: Sequence[int], width: int, spare: Sequence[str]) -> list[int]:
    """Returns the columns for which there is room, or that are not spare."""
    kept = list(range(len(widths)))
    for heading in spare:
        # The first column can be cut without a loss.
        needed = sum(widths[i] for i in kept[1:]) + min(widths[0], NARROWEST_FIRST) + len(GAP) * (len(kept) - 1)
        if needed > width:
            kept.remove(list(headings).index(heading))
    return kept


def fitted(widths: Sequence[int], room: int) -> list[int]:
    """Returns the widths of columns: the first cut if that is enough, else the widest ones cut until all fit.

    None is cut below its least width for that.
    """
    found, over = list(widths), sum(widths) - room
    if 0 < over <= found[0] - NARROWEST_FIRST:
        return [found[0] - over, *found[1:]]
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
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _cell(text: str, size: int, *, cuts: bool) -> str:
    taken = columns(text)
    if cuts and taken > size:
        kept = ""
        while columns(kept) + _columns(text[len(kept)]) < size:
            kept += text[len(kept)]
        text, taken = kept + CUT, columns(kept) + len(CUT)
    return text + " " * (size - taken)
