"""Maps keys to numbers and finds those with the lowest numbers without scanning all."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

K = TypeVar("K", bytes, str)

SPARE = 64  # stale heap entries to tolerate before the heap is rebuilt


class PriorityMap(Generic[K]):
    """Keeps a heap beside a dictionary: the dictionary has the current number; stale heap entries are skipped."""

    def __init__(self, numbers: Mapping[K, int] | None = None) -> None:
        self._numbers: dict[K, int] = dict(numbers or {})
        self._heap: list[tuple[int, K]] = [(number, key) for key, number in self._numbers.items()]
        heapify(self._heap)

    def __len__(self) -> int:
        return len(self._numbers)

    def put(self, key: K, number: int | None) -> None:
        """Sets the number of `key`; None removes the key."""
        if number is None:
            self.discard(key)
        elif self._numbers.get(key) != number:
            self._numbers[key] = number
            heappush(self._heap, (number, key))
            if len(self._heap) > 2 * len(self._numbers) + SPARE:
                self._heap = [(number, key) for key, number in self._numbers.items()]
                heapify(self._heap)

    def discard(self, key: K) -> None:
        self._numbers.pop(key, None)

    def lowest(self) -> int | None:
        """Returns the lowest number, or None if there are no keys."""
        while self._heap:
            number, key = self._heap[0]
            if self._numbers.get(key) == number:
                return number
            heappop(self._heap)
        return None

    def up_to(self, limit: int) -> list[K]:
        """Returns the keys whose number is at most `limit`, lowest first, without removing them."""
        lowest: dict[K, int] = {}
        while (number := self.lowest()) is not None and number <= limit:
            _, key = heappop(self._heap)
            lowest[key] = number
        for key, number in lowest.items():
            heappush(self._heap, (number, key))
        return list(lowest)
