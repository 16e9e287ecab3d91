"""Some faults of a fleet in every test run; `make fleet-faults` makes hundreds, from a seed of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import fleet

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("many", [12, pytest.param(60, marks=pytest.mark.long)])
def test_the_hub_knows_to_the_byte_what_exits_have_counted(show: Callable[[str], None], many: int) -> None:
    """Whatever was killed, cut off, wiped or put back as it once was: nothing is lost, and nothing counted twice."""
    done = fleet.run(many, SEED)
    assert done.faults.total() >= many
    show(str(done))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_whole_hosts_agree_whichever_was_promoted(show: Callable[[str], None]) -> None:
    """The standby is promoted again and again: each change of accounts is on all hosts, or listed; no byte is lost."""
    done = fleet.run(20, SEED, hubs=2)
    assert any("promotions" in each for each in done.faults)
    show(str(done))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_whole_hosts_agree_whichever_of_three_hubs_was_lost(show: Callable[[str], None]) -> None:
    """Each is killed, cut off, stopped or wiped: another one leads by itself, and no change that was made is lost."""
    done = fleet.run(6, SEED, hubs=3)
    assert done.faults.total() >= 6
    show(str(done))
