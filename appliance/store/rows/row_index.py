"""Finds rows by a key that is part of them."""

from __future__ import annotations

import os
import struct
from errno import ENOSPC
from typing import TYPE_CHECKING

from appliance._native import ffi, lib
from appliance.store.rows.row_memory import new_uncleared

if TYPE_CHECKING:
    from appliance.store.rows.row_memory import RowMemory

_FEWEST_SLOTS = 64
_SLOT_BYTES = 4


class RowIndex:
    """Maps keys of `size` bytes, which begin at `at` in each row, to rows. Clients may choose the keys."""

    def __init__(self, memory: RowMemory, at: int, size: int) -> None:
        self._size = size
        self._index = ffi.new("struct wga_row_index *")
        self._index.rows, self._memory = memory.rows, memory
        self._index.key_at, self._index.key_len = at, size
        self._index.secret = struct.unpack("=QQ", os.urandom(16))
        self._move(_FEWEST_SLOTS)

    def __len__(self) -> int:
        return self._index.used

    @property
    def nbytes(self) -> int:
        """Returns the bytes that the slots take."""
        return self._index.size * _SLOT_BYTES

    def find(self, key: bytes) -> int:
        """Returns the row with this key; a negative number if there is none."""
        return lib.wga_row_index_find(self._index, key) if len(key) == self._size else -1

    def put(self, row: int) -> None:
        """Adds a row. Raises ValueError if another row has its key."""
        error = lib.wga_row_index_put(self._index, row)
        if error == -ENOSPC:
            self._move(2 * self._index.size)
            error = lib.wga_row_index_put(self._index, row)
        if error:
            raise ValueError(f"row {row} has the key of another")

    def remove(self, row: int) -> None:
        """Removes a row, whose key is still in it. Raises ValueError if it is not there."""
        if lib.wga_row_index_remove(self._index, row):
            raise ValueError(f"row {row} is not in the index")

    def _move(self, size: int) -> None:
        slots = new_uncleared("uint32_t[]", size)
        if error := lib.wga_row_index_move(self._index, slots, size):
            raise RuntimeError(os.strerror(-error))
        # The C struct only points at the slots: this attribute keeps them alive.
        self._slots = slots
