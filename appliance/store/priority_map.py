"""Keys with a number each, of which the lowest are found without looking at the others."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

K = TypeVar("K", bytes, str)

SPARE = 64  # entries that do not hold any more, before they are cleared away


class Lowest(Generic[K]):
    """A heap beside a dictionary: what a key has now counts, older entries of it are passed over when they come up."""

    def __init__(self, numbers: Mapping[K, int] | None = None) -> None:
        self._numbers: dict[K, int] = dict(numbers or {})
        self._heap: list[tuple[int, K]] = [(number, key) for key, number in self._numbers.items()]
        heapify(self._heap)

    def __len__(self) -> int:
        return len(self._numbers)

    def put(self, key: K, number: int | None) -> None:
        """`key` has this number from now on; None: it has none."""
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

    def least(self) -> int | None:
        """The lowest number there is."""
        while self._heap:
            number, key = self._heap[0]
            if self._numbers.get(key) == number:
                return number
            heappop(self._heap)
        return None

    def upto(self, limit: int) -> list[K]:
        """The keys whose number is at most `limit`, the lowest first. They stay."""
        found: dict[K, int] = {}
        while (number := self.least()) is not None and number <= limit:
            _, key = heappop(self._heap)
            found[key] = number
        for key, number in found.items():
            heappush(self._heap, (number, key))
        return list(found)
