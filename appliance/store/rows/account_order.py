"""Orders accounts by a figure, and finds those with the lowest figures without scanning all."""

from __future__ import annotations

from appliance.domain.windows import MOST
from appliance.store.rows.row_heap import RowHeap
from appliance.store.rows.row_memory import RowMemory

_PLACE_AT = 8  # behind the figure
_ROW_SIZE = _PLACE_AT + 4
_NOT_IN_ORDER = bytes(_ROW_SIZE)


class AccountOrder:
    """Holds figures of accounts by the accounts' numbers, which count from 0: sixteen bytes for each."""

    def __init__(self) -> None:
        self._memory = RowMemory(_ROW_SIZE)
        self._heap = RowHeap(self._memory, 0, _PLACE_AT)
        self._rows = 0

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, account: int, figure: int | None) -> None:
        """Sets the figure of an account; None: it has none. One beyond 64 bits counts as the largest."""
        while self._rows <= account:
            at = self._memory.take() * _ROW_SIZE
            self._memory.buffer[at : at + _ROW_SIZE] = _NOT_IN_ORDER
            self._rows += 1
        if figure is None:
            self._heap.discard(account)
        else:
            self._heap.put(account, min(figure, MOST))

    def lowest(self) -> int | None:
        """Returns the lowest figure, or None if there is none."""
        return self._heap.lowest()

    def up_to(self, limit: int) -> list[int]:
        """Returns the accounts whose figure is at most `limit`, lowest first."""
        return self._heap.up_to(limit)
