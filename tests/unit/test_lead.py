"""Which of three hubs leads: decided alike by each of them, whatever happens to them and to what they write."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from appliance.fleet.hub.lead import BEAT_MS, LEASE_MS, TAKE_MS, Change, Followed, Lead, LeadRecord
from tests.support.fleet.lead_model import LeadWorld

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = Change(1, 5, "m5")
OF_AMS = LeadRecord("ams", 1, KEPT)
HAS_IT = Followed(KEPT)


def run(seeds: range, show: Callable[[str], None], *, vacant: bool = False) -> None:
    acknowledged = takeovers = by_yielded = stuck = 0
    for seed in seeds:
        world = LeadWorld(random.Random(seed), vacant)  # noqa: S311 (a test's choices)
        goes_on = world.run()
        faults = bool(world.rolled_back) + any(hub.lost for hub in world.hubs)
        may_stand = faults == 2 or (faults and world.begun_alone)
        assert goes_on or may_stand, f"nobody leads, or nothing is acknowledged: seed {seed}"
        stuck += not goes_on
        acknowledged += len(world.acknowledged)
        takeovers += world.takeovers
        by_yielded += world.led_by_yielded
    show(
        f"{len(seeds)} schedules: {acknowledged} changes acknowledged, {takeovers} takeovers, {by_yielded} of them by "
        f"a hub that had yielded and followed nothing since, {stuck} stand still"
    )


def test_no_acknowledged_change_is_lost(show: Callable[[str], None]) -> None:
    """One leads at most, and has all that was ever acknowledged; once faults are over, with one hub lost or rolled
    back, one leads and acknowledges again."""
    run(range(40), show)


@pytest.mark.long
def test_no_acknowledged_change_is_lost_in_thousands(show: Callable[[str], None]) -> None:
    """As above."""
    run(range(1000, 3000), show)
    run(range(3000, 4000), show, vacant=True)


def test_where_the_hub_is_lost_before_it_is_appointed_one_of_the_others_is(show: Callable[[str], None]) -> None:
    """One alone; from then on as above. Where that one is lost too, or rolled back, before another has what it began
    with, none is."""
    run(range(20), show, vacant=True)


def test_a_hub_takes_the_lead_after_a_while() -> None:
    """Of seeing the record unchanged, in the next generation; what was kept stays."""
    lead = Lead("fra")
    lead.read(OF_AMS, 7, 100)
    assert lead.wanted(HAS_IT, None, 99 + TAKE_MS) is None
    write = lead.wanted(HAS_IT, None, 100 + TAKE_MS)
    assert write is not None
    assert (write.record, write.revision) == (LeadRecord("fra", 2, KEPT), 7)
    assert not lead.leads(100 + TAKE_MS)
    lead.written(write, 8)
    assert lead.leads(99 + TAKE_MS + LEASE_MS)
    assert not lead.leads(100 + TAKE_MS + LEASE_MS)
    assert lead.acknowledged is None


def test_it_counts_anew_when_the_record_could_not_be_read() -> None:
    """The leader could not write it either."""
    lead = Lead("fra")
    lead.read(OF_AMS, 7, 0)
    lead.unread()
    lead.read(OF_AMS, 7, TAKE_MS)
    assert lead.wanted(HAS_IT, None, 2 * TAKE_MS - 1) is None
    assert lead.wanted(HAS_IT, None, 2 * TAKE_MS) is not None


@pytest.mark.parametrize(
    ("followed", "takes"),
    [
        (Followed(KEPT), True),
        (Followed(Change(1, 6, "m6")), True),
        (Followed(Change(1, 4, "m4")), False),
        (Followed(Change(1, 5, "another")), False),
        (Followed(Change(2, 1, "m1")), True),
        (Followed(Change(0, 9, "m9")), False),
        (Followed(Change(1, 9, "m9"), lambda change: change == KEPT), True),
        (Followed(Change(1, 9, "m9"), lambda change: change != KEPT), False),
    ],
)
def test_only_who_has_what_was_kept_takes_it(followed: Followed, *, takes: bool) -> None:
    """A hub that was rolled back, and has had other changes since, does not."""
    lead = Lead("fra")
    lead.read(OF_AMS, 7, 0)
    assert (lead.wanted(followed, None, TAKE_MS) is not None) is takes


def test_a_hub_that_has_yielded_begins_after_the_generation_that_it_yielded_to() -> None:
    """Which it knows of and has nothing of; whoever had led that acknowledged nothing in it."""
    lead = Lead("fra")
    lead.read(OF_AMS, 7, 0)
    write = lead.wanted(Followed(KEPT, seen=4), None, TAKE_MS)
    assert write is not None
    assert write.record == LeadRecord("fra", 5, KEPT)


def test_a_hub_that_was_started_anew_takes_its_own_lead_at_once() -> None:
    """In a new generation: it does not know what it has told."""
    lead = Lead("ams")
    assert lead.wanted(HAS_IT, None, 0) is None
    lead.read(OF_AMS, 7, 0)
    assert not lead.leads(0)
    write = lead.wanted(HAS_IT, None, 0)
    assert write is not None
    assert write.record.gen == 2


def test_nobody_makes_the_record() -> None:
    """It is appointed: whoever makes it decides whose accounts are the fleet's."""
    lead = Lead("fra")
    lead.read(None, 0, 0)
    assert lead.wanted(HAS_IT, None, 10 * TAKE_MS) is None


def test_a_change_is_acknowledged_once_the_record_says_that_another_has_it() -> None:
    """At once when another hub has told so, of this generation; and each second the record is written anew."""
    lead = Lead("ams")
    lead.read(OF_AMS, 7, 0)
    write = lead.wanted(HAS_IT, None, 0)
    assert write is not None
    lead.written(write, 8)
    assert lead.wanted(HAS_IT, Change(1, 9, "m9"), BEAT_MS - 1) is None
    told = Change(2, 6, "m6")
    write = lead.wanted(HAS_IT, told, 1)
    assert write is not None
    assert lead.acknowledged is None
    lead.written(write, 9)
    assert lead.acknowledged == told
    assert lead.wanted(Followed(told), told, BEAT_MS) is None
    assert lead.wanted(Followed(told), Change(2, 5, "m5"), BEAT_MS) is None
    again = lead.wanted(Followed(told), None, BEAT_MS + 1)
    assert again is not None
    assert again.record == write.record
    lead.read(LeadRecord("lon", 3, told), 10, BEAT_MS + 2)
    assert lead.acknowledged is None
    assert not lead.leads(BEAT_MS + 2)
