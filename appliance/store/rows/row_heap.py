"""Orders rows by a number that is part of them, and finds those with the lowest numbers without scanning all."""

from __future__ import annotations

import struct
from errno import ENOSPC
from typing import TYPE_CHECKING

from appliance._native import ffi, lib
from appliance.store.rows.row_memory import new_uncleared

if TYPE_CHECKING:
    from appliance.store.rows.row_memory import RowMemory

_NUMBER = struct.Struct("=q")
_PLACE = struct.Struct("=I")  # 1 + the position; 0: it is in no heap
_FEWEST = 64
_ENTRY_BYTES = 4


class RowHeap:
    """Orders rows by the int64 at `number_at` of each. The uint32 at `place_at` is the heap's: 0 in a new row.

    Heaps may share both, if a row is in one of them at most.
    """

    def __init__(self, memory: RowMemory, number_at: int, place_at: int) -> None:
        self._memory = memory
        self._number_at, self._place_at = number_at, place_at
        self._heap = ffi.new("struct wga_row_heap *")
        self._heap.rows = memory.rows
        self._heap.number_at, self._heap.place_at = number_at, place_at
        self._allocate(_FEWEST)

    def __len__(self) -> int:
        return self._heap.count

    def __contains__(self, row: int) -> bool:
        """Tells whether a row is here; one that was given back is not."""
        (place,) = _PLACE.unpack_from(self._memory.buffer, row * self._memory.row_size + self._place_at)
        return bool(0 < place <= len(self) and self._order[place - 1] == row)

    @property
    def nbytes(self) -> int:
        """Returns the bytes that the heap takes or has taken, beside the rows."""
        return self._heap.capacity * _ENTRY_BYTES

    def put(self, row: int, number: int) -> None:
        """Sets the number of a row, and adds the row. Raises ValueError if the row is in another heap."""
        error = lib.wga_row_heap_put(self._heap, row, number)
        if error == -ENOSPC:
            self._grow()
            error = lib.wga_row_heap_put(self._heap, row, number)
        if error:
            raise ValueError(f"row {row} is in another heap")

    def remove(self, row: int) -> None:
        """Removes a row. Raises ValueError if it is not there."""
        if lib.wga_row_heap_remove(self._heap, row):
            raise ValueError(f"row {row} is not in the heap")

    def discard(self, row: int) -> None:
        """Removes a row if it is there."""
        lib.wga_row_heap_remove(self._heap, row)

    def lowest(self) -> int | None:
        """Returns the lowest number, or None if there are no rows."""
        row = lib.wga_row_heap_first(self._heap)
        return None if row < 0 else self._number(row)

    def up_to(self, limit: int) -> list[int]:
        """Returns the rows whose number is at most `limit`, lowest first."""
        first = self.lowest()
        if first is None or first > limit:
            return []
        capacity = len(self)
        found = new_uncleared("uint32_t[]", capacity)
        # A limit may be computed; what it is compared with is stored.
        many = lib.wga_row_heap_up_to(self._heap, min(limit, 2**63 - 1), found, capacity)
        return sorted(ffi.unpack(found, many), key=self._number)

    def _number(self, row: int) -> int:
        at = row * self._memory.row_size + self._number_at
        return int(_NUMBER.unpack_from(self._memory.buffer, at)[0])

    def _grow(self) -> None:
        before = ffi.buffer(self._order)
        self._allocate(2 * self._heap.capacity)
        ffi.buffer(self._order)[: len(before)] = before

    def _allocate(self, capacity: int) -> None:
        # The C struct only points at the memory: this attribute keeps it alive.
        self._order = new_uncleared("uint32_t[]", capacity)
        self._heap.order, self._heap.capacity = self._order, capacity
