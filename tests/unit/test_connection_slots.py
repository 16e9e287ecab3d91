"""Who gets a place among the connections, and who makes room."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.server.http.connection_slots import ConnectionSlots

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST, SHARE = 16, 4


class Stand:
    """Connections by source, in the order in which they came."""

    def __init__(self, stack: ExitStack, most: int = MOST) -> None:
        self._stack = stack
        self.slots = ConnectionSlots(most)
        self.all: list[tuple[str | None, socket.socket]] = []

    def enter(self, source: str | None, times: int = 1) -> list[bool]:
        return [self._enter(source) for _ in range(times)]

    def _enter(self, source: str | None) -> bool:
        connection = self._stack.enter_context(socket.socket())
        admitted = self.slots.enter(connection, source)
        if admitted:
            self.all.append((source, connection))
        return admitted

    def of(self, source: str | None) -> list[socket.socket]:
        """Those of a source that have a place."""
        return [connection for whose, connection in self.all if whose == source and connection in self.slots]

    def serve(self, source: str | None) -> None:
        for connection in self.of(source):
            self.slots.serve(connection)


@pytest.fixture
def stand() -> Iterator[Stand]:
    with ExitStack() as stack:
        yield Stand(stack)


def test_the_source_that_holds_the_most_makes_room(stand: Stand) -> None:
    """When all places are taken, the longest idle connection of the source that holds the most makes room."""
    stand.enter("a", 3)
    stand.enter("b", 5)
    stand.enter("c", 4)
    stand.enter("d", 4)
    longest = stand.of("b")[0]
    assert stand.enter("e") == [True]
    assert longest not in stand.slots
    assert [len(stand.of(source)) for source in "abcde"] == [3, 4, 4, 4, 1]


def test_a_flood_of_one_source_evicts_itself(stand: Stand) -> None:
    """However many connections one source opens, those of others stay, and newcomers of others find a place."""
    stand.enter("good", 3)
    kept = stand.of("good")
    assert all(stand.enter("flood", 200))
    assert stand.of("good") == kept
    assert len(stand.of("flood")) == MOST - SHARE - len(kept)
    assert stand.enter("other", 2) == [True, True]
    assert all(stand.enter("flood", 200))
    assert len(stand.of("other")) == 2
    assert stand.of("good") == kept


def test_a_share_stays_free_of_one_source_that_is_served(stand: Stand) -> None:
    """A source whose requests are all being worked on cannot be evicted: it gets no place of the last share, and a
    newcomer finds one there."""
    for _ in range(20):
        stand.enter("flood")
        stand.serve("flood")
    assert len(stand.of("flood")) == MOST - SHARE
    assert stand.enter("flood") == [False]
    assert stand.enter("good", SHARE) == [True] * SHARE
    stand.serve("good")
    assert stand.enter("other") == [False]


def test_within_its_share_a_source_takes_the_last_places(stand: Stand) -> None:
    """Sources within their shares fill all places; the next one evicts."""
    for source in "abcd":
        stand.enter(source, SHARE)
    assert all(len(stand.of(source)) == SHARE for source in "abcd")
    longest = stand.of("a")[0]
    assert stand.enter("e") == [True]
    assert longest not in stand.slots


def test_of_sources_with_one_connection_the_longest_idle_makes_room(stand: Stand) -> None:
    """Among equals it is the longest idle, and who was served since is not."""
    for number in range(MOST):
        stand.enter(f"s{number}")
    (first,) = stand.of("s0")
    stand.slots.serve(first)
    stand.slots.wait_for(first)
    assert stand.enter("new") == [True]
    assert stand.of("s1") == []
    assert stand.of("s0") == [first]


def test_connections_of_many_make_room_last(stand: Stand) -> None:
    """A proxy's connections have no share, and make room only where no other is idle."""
    stand.enter(None, MOST - 1)
    stand.enter("a")
    (own,) = stand.of("a")
    assert stand.enter(None) == [True]
    assert own not in stand.slots
    longest = stand.of(None)[0]
    assert stand.enter("b") == [True]
    assert longest not in stand.slots
    assert len(stand.of(None)) == MOST - 1


def test_all_places_of_one() -> None:
    """The smallest number of places works: one."""
    with ExitStack() as stack:
        one = Stand(stack, most=1)
        assert one.enter("a") == [True]
        assert one.enter("a") == [True]
        assert one.enter("b") == [True]
        assert one.of("a") == []
        one.serve("b")
        assert one.enter("a") == [False]


SOURCES: list[str | None] = [None, *"abcde"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "serve", "wait_for", "leave"]), st.sampled_from([None, *"abcde"]), st.integers(0, 30)
    ),
    max_size=200,
)


@given(STEPS)
def test_no_order_of_events_breaks_it(steps: list[tuple[str, str | None, int]]) -> None:
    """Whatever happens in whatever order: never more than all places, one at most makes room for a newcomer, none for
    one that has its share while all that make room have less, and nothing is kept of who has left."""
    with ExitStack() as stack:
        stand = Stand(stack)
        for step, source, number in steps:
            held = {each: stand.of(each) for each in SOURCES}
            if step == "enter":
                admitted = stand.enter(source)
                for each, before in held.items():
                    lost = [one for one in before if one not in stand.slots]
                    assert len(lost) <= 1
                    assert (
                        not lost or each is None or len(before) >= SHARE or len(held[source]) < SHARE or source is None
                    )
                assert admitted == [True] or sum(map(len, held.values())) >= MOST - SHARE
            elif stand.all:
                getattr(stand.slots, step)(stand.all[number % len(stand.all)][1])
            assert sum(len(stand.of(each)) for each in SOURCES) <= MOST
        for _, connection in stand.all:
            stand.slots.leave(connection)
        assert (stand.slots._sources, stand.slots._source_of, stand.slots._served) == ({}, {}, set())
        assert (stand.slots._ranks._by_held, stand.slots._ranks._rank_of) == ({}, {})
