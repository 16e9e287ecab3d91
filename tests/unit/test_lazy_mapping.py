"""A mapping whose values are made when they are asked for."""

from __future__ import annotations

import pytest

from appliance.network.lazy_mapping import OnDemand


def test_made_when_asked_for() -> None:
    """A value is made at each look-up and at no other time; what is not among the keys is not there."""
    made: list[str] = []

    def make(key: str) -> int:
        made.append(key)
        return len(key)

    found = OnDemand({"a", "bcd"}, make)
    assert (len(found), set(found), "bcd" in found, "e" in found) == (2, {"a", "bcd"}, True, False)
    assert found.get("e") is None
    with pytest.raises(KeyError):
        found["e"]
    assert made == []
    assert (found["bcd"], found["bcd"], found.get("a")) == (3, 3, 1)
    assert made == ["bcd", "bcd", "a"]
    assert found == {"a": 1, "bcd": 3}
