"""Runs lists through rows: each row names the next and the previous one of its list."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.store.rows.row_memory import RowMemory

LINKS = struct.Struct("=II")  # to the next row of the list and to the previous one


class RowLists:
    """Keeps lists in `memory`, whose rows have their links at `at`.

    A list is named by its first link, and a link is 1 + a row; 0: there is none.
    """

    def __init__(self, memory: RowMemory, at: int) -> None:
        self._memory = memory
        self._at = at

    def rows(self, first: int) -> list[int]:
        """Returns the rows of a list."""
        rows, link = [], first
        while link:
            rows.append(link - 1)
            link, _ = self._links(link)
        return rows

    def put(self, first: int, row: int) -> int:
        """Puts a row at the head of a list; returns what is the first link then."""
        if first:
            after, _ = self._links(first)
            self._set_links(first, after, row + 1)
        self._set_links(row + 1, first, 0)
        return row + 1

    def remove(self, first: int, row: int) -> int:
        """Takes a row out of a list; returns what is the first link then."""
        after, before = self._links(row + 1)
        if after:
            self._set_links(after, self._links(after)[0], before)
        if not before:
            return after
        self._set_links(before, after, self._links(before)[1])
        return first

    def _links(self, link: int) -> tuple[int, int]:
        after, before = LINKS.unpack_from(self._memory.buffer, (link - 1) * self._memory.row_size + self._at)
        return after, before

    def _set_links(self, link: int, after: int, before: int) -> None:
        LINKS.pack_into(self._memory.buffer, (link - 1) * self._memory.row_size + self._at, after, before)
