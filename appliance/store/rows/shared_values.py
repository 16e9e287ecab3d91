"""Numbers values that many rows have in common, so that each is in memory once and a row names it with four bytes."""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class SharedValues(Generic[V]):
    """Numbers values from 1, and forgets a value that no row uses any more; its number is taken again."""

    def __init__(self) -> None:
        self._values: list[V | None] = [None]
        self._uses: list[int] = [0]
        self._numbers: dict[V, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> V:
        """Returns the value that is in use with this number."""
        return self._values[number]  # type: ignore[return-value]  # a value in use is not None

    def uses(self) -> list[tuple[V, int]]:
        """Returns the values in use, each with how many rows use it."""
        return [(value, self._uses[number]) for value, number in self._numbers.items()]

    def take(self, value: V) -> int:
        """Returns the value's number, for one more row."""
        number = self._numbers.get(value)
        if number is not None:
            self._uses[number] += 1
            return number
        if self._free:
            number = self._free.pop()
            self._values[number], self._uses[number] = value, 1
        else:
            number = len(self._values)
            self._values.append(value)
            self._uses.append(1)
        self._numbers[value] = number
        return number

    def give(self, number: int) -> None:
        """Counts one row less that uses the value with this number."""
        self._uses[number] -= 1
        if not self._uses[number]:
            del self._numbers[self[number]]
            self._values[number] = None
            self._free.append(number)

    def exchange(self, number: int, value: V) -> int:
        """Returns the value's number for a row that used the value with `number` so far."""
        if self._values[number] == value:
            return number
        taken = self.take(value)
        self.give(number)
        return taken
