"""When another program's changes become a contention, how far repairs are slowed down, and when it is over."""

from __future__ import annotations

import pytest

from appliance.network.contention import FIRST_S, LONGEST_S, MANY, QUIET_S, WITHIN_S, Contention
from appliance.network.firewall.state import EgressChanges
from appliance.network.reconcile import Changes
from appliance.sessions.contentions import FIREWALL, Contentions
from appliance.sessions.metrics import Metrics


def test_a_few_repairs_are_none_and_wait_for_nothing() -> None:
    """Four within the time, or any number that are further apart."""
    few, seldom = Contention(), Contention()
    assert not any(few.repaired(now) for now in range(MANY - 1))
    apart = WITHIN_S / (MANY - 1) + 0.1
    assert not any(seldom.repaired(number * apart) for number in range(50))
    assert (few.wait_s(MANY), seldom.wait_s(50 * apart)) == (0, 0)


def test_many_are_one_and_wait_longer_each_time() -> None:
    """It begins once; the pause is doubled up to the longest."""
    contention = Contention()
    assert [contention.repaired(0.1 * number) for number in range(MANY)] == [False] * (MANY - 1) + [True]
    now, pauses = 0.1 * (MANY - 1), []
    for _ in range(6):
        pauses.append(contention.wait_s(now))
        now += pauses[-1]
        assert contention.wait_s(now) == pytest.approx(0)
        assert not contention.repaired(now)
    assert pauses == pytest.approx([FIRST_S, 2 * FIRST_S, 4 * FIRST_S, LONGEST_S, LONGEST_S, LONGEST_S])


def test_it_is_over_once_nothing_is_changed() -> None:
    """Told once; what comes later begins anew."""
    contention = Contention()
    for _ in range(MANY):
        contention.repaired(0)
    assert not contention.ended(QUIET_S)
    assert contention.ended(FIRST_S + QUIET_S)
    assert not contention.ended(FIRST_S + QUIET_S)
    assert not contention.on
    assert not contention.repaired(20)


def test_new_rules_wait_for_no_contention() -> None:
    """The appliance's own changes of its table are applied at once, and never have it removed meanwhile; what another
    program undoes waits, and the table with it."""
    contentions = Contentions(Metrics(), monotonic=lambda: 0.0)
    for _ in range(MANY):
        contentions.repaired(FIREWALL, "nft")
    undone, new = EgressChanges(rules=True), EgressChanges(rules=True, declared=True)
    assert contentions.due(Changes(egress=undone)).egress == EgressChanges(close=True)
    assert contentions.due(Changes(egress=new)).egress == new
