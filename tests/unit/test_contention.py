"""When another program's changes become a contention, how far repairs are slowed down, and when it is over."""

from __future__ import annotations

import pytest

from appliance.network.contention import FIRST_S, LONGEST_S, MANY, QUIET_S, WITHIN_S, Contention


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
