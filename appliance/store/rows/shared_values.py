"""Numbers values that many rows have in common, so that each is in memory once and a row names it with four bytes."""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class SharedValues(Generic[V]):
    """Numbers values from 1, and forgets a value that no row uses any more; its number is taken again.

    `values`: by number.
    """

    def __init__(self) -> None:
        self.values: list[V] = [None]  # type: ignore[list-item]  # in the place of 0, and of what is free
        self._uses: list[int] = [0]
        self._numbers: dict[V, int] = {}
        self._free: list[int] = []
        self._last = 0  # the number taken last: rows that come one after the other mostly have the same values

    def __len__(self) -> int:
        return len(self._numbers)

    def uses(self) -> list[tuple[V, int]]:
        """Returns the values in use, each with how many rows use it."""
        return [(value, self._uses[number]) for value, number in self._numbers.items()]

    def take(self, value: V) -> int:
        """Returns the value's number, for one more row."""
        number = self._last if self.values[self._last] == value else self._numbers.get(value)
        if number is not None:
            self._uses[number] += 1
            self._last = number
            return number
        if self._free:
            number = self._free.pop()
            self.values[number], self._uses[number] = value, 1
        else:
            number = len(self.values)
            self.values.append(value)
            self._uses.append(1)
        self._numbers[value] = self._last = number
        return number

    def give(self, number: int) -> None:
        """Counts one row less that uses the value with this number."""
        self._uses[number] -= 1
        if not self._uses[number]:
            del self._numbers[self.values[number]]
            self.values[number] = None  # type: ignore[assignment]
            self._free.append(number)

    def exchange(self, number: int, value: V) -> int:
        """Returns the value's number for a row that used the value with `number` so far."""
        if self.values[number] == value:
            return number
        taken = self.take(value)
        self.give(number)
        return taken
