"""Which exits of a region are asked for a session."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.errors import NoActiveNodeInRegion, NoActiveNodes
from appliance.fleet.presence import choice
from appliance.fleet.presence.directory import Presence
from tests.support.fleet.members import AMS, FRA, HERE, SIN, a_beat, a_member

if TYPE_CHECKING:
    from collections.abc import Sequence

IDS = (HERE, AMS, FRA, SIN)
loads = st.lists(st.integers(0, 100), min_size=1, max_size=4)


def first(n: int) -> int:
    assert n > 0
    return 0


def a_presence(id_: str, region: str, fault: str | None = None, live: int = 0) -> Presence:
    beat = a_beat(id_, region=region, live=live, room=100 - live)
    return Presence(a_member(id_, id_[4:6], region), beat, True, 0, 0, fault, asked=True)


@given(loads, st.integers(0, 1000))
def test_at_most_two_are_asked_and_this_host_first_if_it_is_not_much_busier(live: Sequence[int], seed: int) -> None:
    """This host comes first up to 1.25 times the least load; else the first is not the busiest of three or more."""
    there = [a_beat(id_, live=each, room=100 - each) for id_, each in zip(IDS, live, strict=False)]
    found = choice.order(there, HERE, Random(seed).randrange)  # noqa: S311 (not for secrets)
    assert len(found) == len(set(found)) == min(2, len(there))
    assert set(found) <= {beat.node for beat in there}
    if live[0] == min(live) or 4 * live[0] < 5 * min(live):
        assert found[0] == HERE
    elif 4 * live[0] > 5 * min(live) and len(set(live)) == len(live):  # just between the two, rounding decides
        assert found[0] != IDS[live.index(max(live))]


def test_all_are_chosen_where_none_is_busier() -> None:
    """Where all are alike and this host is not among them, chance spreads sessions evenly."""
    there, random = [a_beat(id_) for id_ in IDS[1:]], Random(7)  # noqa: S311 (not for secrets)
    firsts = [choice.order(there, HERE, random.randrange)[0] for _ in range(3000)]
    assert all(900 < firsts.count(id_) < 1100 for id_ in IDS[1:])


def test_the_busier_of_addresses_and_line_counts() -> None:
    """An exit is as loaded as its addresses are taken or its line is full, whichever is more."""
    assert a_beat(AMS, live=30, room=10, mbps=10, line=100).load == 0.75
    assert a_beat(AMS, live=1, room=99, mbps=90, line=100).load == 0.9
    assert a_beat(AMS, live=0, room=0, mbps=0, line=0).load == 0


def test_regions_and_refusals_say_the_same() -> None:
    """What a refusal names as available is what the list of regions has, by code."""
    there = [a_presence(HERE, "us"), a_presence(AMS, "eu"), a_presence(FRA, "eu"), a_presence(SIN, "as", "drained")]
    assert choice.regions(there) == [("eu", 2), ("us", 1)]
    with pytest.raises(NoActiveNodeInRegion) as refused:
        choice.candidates("as", there, HERE, first)
    assert refused.value.available == ("eu", "us")
    assert choice.candidates("us", there, HERE, first) == [HERE]
    assert choice.candidates("eu", there, HERE, first) == [AMS, FRA]


def test_without_any_exit_there_is_no_region() -> None:
    """If no exit takes sessions, a refusal names no region."""
    there = [a_presence(HERE, "us", "not ready")]
    assert choice.regions(there) == []
    with pytest.raises(NoActiveNodes):
        choice.candidates("us", there, HERE, first)
