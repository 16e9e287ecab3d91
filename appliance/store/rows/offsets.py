"""Keeps numbers of addresses as bytes: as a set of Python's integers, those of all sessions took 60 bytes each."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Offsets(Set[int]):
    """Holds offsets in a subnet, of which there are few: one byte for each up to the highest."""

    def __init__(self, offsets: Iterable[int] = ()) -> None:
        self._marks = bytearray()
        for offset in offsets:
            self.add(offset)

    def add(self, offset: int) -> None:
        """Adds an offset; it may be there already."""
        if offset >= len(self._marks):
            self._marks.extend(bytes(2 * offset + 1 - len(self._marks)))
        self._marks[offset] = 1

    def discard(self, offset: int) -> None:
        """Removes an offset, if it is there."""
        if offset in self:
            self._marks[offset] = 0

    def clear(self) -> None:
        """Removes all."""
        self._marks.clear()

    def __contains__(self, offset: object) -> bool:
        return isinstance(offset, int) and 0 <= offset < len(self._marks) and bool(self._marks[offset])

    def __iter__(self) -> Iterator[int]:
        return (offset for offset, mark in enumerate(self._marks) if mark)

    def __len__(self) -> int:
        return self._marks.count(1)
