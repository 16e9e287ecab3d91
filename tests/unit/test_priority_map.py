"""Keys by number, against a plain dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.store.priority_map import SPARE, PriorityMap

keys = st.sampled_from("abcde")


@given(
    st.dictionaries(keys, st.integers(0, 9)),
    st.lists(st.tuples(keys, st.none() | st.integers(0, 9), st.integers(-1, 10))),
)
def test_against_a_dictionary(first: dict[str, int], steps: list[tuple[str, int | None, int]]) -> None:
    """Whatever was put, given up and put again: the lowest are those that hold now, in order, and asking moves none."""
    found, plain = PriorityMap(first), dict(first)
    for key, number, limit in steps:
        found.put(key, number)
        if number is None:
            plain.pop(key, None)
        else:
            plain[key] = number
        expected = sorted((number, key) for key, number in plain.items() if number <= limit)
        assert found.up_to(limit) == [key for _, key in expected]
        assert found.lowest() == min(plain.values(), default=None)
        assert len(found) == len(plain)


def test_what_does_not_hold_is_cleared_away() -> None:
    """A number that changes for ever takes no more room than one that does not, also where a lower one stays."""
    found = PriorityMap({"a": 0})
    for number in range(10_000):
        found.put("b", number)
    assert len(found._heap) <= 2 * len(found) + SPARE + 1
