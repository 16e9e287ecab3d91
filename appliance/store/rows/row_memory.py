"""Keeps rows of one size in one block of memory, where Python packs them and C orders and finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance._native import ffi

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_ROWS = 2**31 - 1

# What was never a row is never read, nor touched: the operating system gives no memory for it.
new_uncleared = ffi.new_allocator(should_clear_after_alloc=False)


class RowMemory:
    """Numbers rows from 0; a number that was given back is taken again first. `buffer`: all of them, packed."""

    def __init__(self, row_size: int, capacity: int = 64) -> None:
        self.row_size = row_size
        self.rows = ffi.new("struct wga_rows *")
        self.rows.row_size = row_size
        self._end = 0  # rows up to here have been taken
        self._free: list[int] = []
        self._allocate(capacity)

    @property
    def nbytes(self) -> int:
        """Returns the bytes that rows take or have taken."""
        return self._end * self.row_size

    def take(self) -> int:
        """Returns a free row, whose content is undefined."""
        if self._free:
            return self._free.pop()
        if self._end == self.rows.capacity:
            self._grow()
        self._end += 1
        return self._end - 1

    def give(self, row: int) -> None:
        """Gives a row back."""
        self._free.append(row)

    def taken(self) -> Iterator[int]:
        """Yields the rows that are taken now, lowest first."""
        free = set(self._free)
        return (row for row in range(self._end) if row not in free)

    def _grow(self) -> None:
        if self.rows.capacity >= MOST_ROWS:
            raise MemoryError(f"more than {MOST_ROWS} rows")
        before = self.buffer
        self._allocate(min(2 * self.rows.capacity, MOST_ROWS))
        self.buffer[: len(before)] = before

    def _allocate(self, capacity: int) -> None:
        # The C struct only points at the memory: this attribute keeps it alive.
        self._memory = new_uncleared("uint8_t[]", capacity * self.row_size)
        self.rows.bytes, self.rows.capacity = self._memory, capacity
        self.buffer = ffi.buffer(self._memory)
