"""Rows that are taken, found, ordered and given back while their memory grows, against plain dictionaries."""

from __future__ import annotations

from errno import ENOENT
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.store.rows import row_memory
from appliance.store.rows.row_heap import RowHeap
from appliance.store.rows.row_index import RowIndex
from appliance.store.rows.row_memory import RowMemory

KEY_AT, KEY_SIZE, NUMBER_AT, PLACE_AT, ROW_SIZE = 1, 3, 5, 13, 19  # nothing is aligned, and the last bytes are unused
LOWEST, MOST = -(2**63), 2**63 - 1
STEPS = 600  # memory, slots and orders begin with 64 at most


class Rows:
    """Rows with a key, in one of two orders, and what they should be."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.memory = RowMemory(ROW_SIZE, capacity=1)
        self.index = RowIndex(self.memory, KEY_AT, KEY_SIZE)
        self.heaps = [RowHeap(self.memory, NUMBER_AT, PLACE_AT) for _ in range(2)]
        self.keys: dict[bytes, int] = {}
        self.numbers: list[dict[int, int]] = [{}, {}]

    def number(self) -> int:
        few, many = self.random.randrange(5), self.random.randrange(LOWEST, MOST + 1)
        return self.random.choice((LOWEST, MOST, few, few, many))

    def add(self, key: bytes) -> None:
        row, number, which = self.memory.take(), self.number(), self.random.randrange(2)
        assert row not in self.keys.values()
        self.memory.buffer[row * ROW_SIZE : (row + 1) * ROW_SIZE] = b"\xff" + key + bytes(ROW_SIZE - 4)
        if key in self.keys:
            with pytest.raises(ValueError, match="the key of another"):
                self.index.put(row)
            self.memory.give(row)
            return
        self.index.put(row)
        self.heaps[which].put(row, number)
        self.keys[key], self.numbers[which][row] = row, number

    def move(self, row: int) -> None:
        which, number = int(row in self.numbers[1]), self.number()
        with pytest.raises(ValueError, match="another heap"):
            self.heaps[1 - which].put(row, number)
        self.heaps[which].put(row, number)
        if self.random.random() < 0.5:
            self.heaps[which].remove(row)
            del self.numbers[which][row]
            which = 1 - which
            self.heaps[which].put(row, number)
        self.numbers[which][row] = number

    def drop(self, key: bytes) -> None:
        row = self.keys.pop(key)
        self.index.remove(row)
        for heap, numbers in zip(self.heaps, self.numbers, strict=True):
            heap.discard(row)
            numbers.pop(row, None)
        self.memory.give(row)

    def step(self, *, growing: bool) -> None:
        known = self.random.choice([*self.keys]) if self.keys else None
        if known is None or self.random.random() < (0.6 if growing else 0.2):
            self.add(self.random.randrange(2**10).to_bytes(KEY_SIZE, "big"))
        elif self.random.random() < 0.4:
            self.drop(known)
        else:
            self.move(self.keys[known])

    def compare(self) -> None:
        assert len(self.index) == len(self.keys)
        assert {key: self.index.find(key) for key in self.keys} == self.keys
        assert self.index.find(b"\xff" * KEY_SIZE) == -ENOENT
        assert self.index.find(b"") < 0
        assert [*self.memory.taken()] == sorted(self.keys.values())
        for heap, numbers in zip(self.heaps, self.numbers, strict=True):
            assert {row for row in range(-(-self.memory.nbytes // ROW_SIZE)) if row in heap} == numbers.keys()
            assert heap.lowest() == min(numbers.values(), default=None)
            for limit in (LOWEST - 1, LOWEST, 2, self.number(), MOST, MOST + 1):
                found = heap.up_to(limit)
                assert [numbers[row] for row in found] == sorted(n for n in numbers.values() if n <= limit)
                assert len({*found}) == len(found)


@given(st.integers(0))
@settings(max_examples=15, deadline=None)
def test_against_dictionaries(seed: int) -> None:
    """Whatever is added, moved and dropped, and however often all of it grows: each row is found and in order."""
    rows = Rows(Random(seed))  # noqa: S311
    for n in range(STEPS):
        rows.step(growing=n % 400 < 300)
        if n % 50 == 0:
            rows.compare()
    rows.compare()


def test_no_more_rows_than_a_number_can_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that has as many rows as C can number gives no more."""
    monkeypatch.setattr(row_memory, "MOST_ROWS", 3)
    memory = RowMemory(ROW_SIZE, capacity=2)
    assert [memory.take() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(MemoryError, match="more than 3 rows"):
        memory.take()
    memory.give(1)
    assert memory.take() == 1
