"""What the ledger lends of an account's limits, decision by decision."""

from __future__ import annotations

import msgspec
import pytest

from appliance.fleet.quota.escrow import LAPSES_MS, LedgerFacts, QuotaRecord, decide
from appliance.fleet.quota.messages import LeaseAsk, LeaseTold, WindowAsk
from tests.support.fleet.escrow_model import ModelLimits

A, B, C = "nod_a", "nod_b", "nod_c"
LIMITS = ModelLimits(bytes_limit=64_000, bytes_window=1_000, seconds_limit=0, max_live_sessions=2)
LENGTH_MS, BEGAN = 1_000_000, 10_000_000


class Told:
    """A ledger's record, and the time; all have told what they hold, but for those that have not."""

    def __init__(self, *members: str, untold: tuple[str, ...] = (), lends: bool = True) -> None:
        self.record = QuotaRecord()
        self.members = members
        self.told = [each for each in members if each not in untold]
        self.now = BEGAN
        self.lends = lends
        self.q = 0

    def ask(
        self, node: str, traffic: WindowAsk, live: int = 0, wanted: int = 0, q: int | None = None, e: int = 0
    ) -> LeaseTold:
        self.q += 1
        given = LedgerFacts(LIMITS, self.members, self.told, self.lends, self.now)
        asked = LeaseAsk("acc_1", e, self.q if q is None else q, traffic, WindowAsk(), live, wanted)
        record, told = decide(self.record, node, asked, given)
        self.record = msgspec.json.decode(msgspec.json.encode(record), type=QuotaRecord)
        assert self.record == record
        return told

    def borrow(self, node: str, want: int = 64_000) -> int:
        """What it is lent of a window in which it has used nothing."""
        opened = self.record.traffic.opened
        had = self.record.traffic.parts.get(node)
        granted = 0 if had is None else had.granted
        return self.ask(node, WindowAsk(opened, 0, granted, want)).traffic.granted


def test_half_of_what_is_free_is_lent_and_all_of_the_last() -> None:
    """A 64th of the limit at the least, no more than is wanted and than there is."""
    ledger = Told(A, B)
    assert ledger.borrow(A) == 32_000
    assert ledger.borrow(B, want=500) == 500
    assert ledger.borrow(B) == 500 + 31_500 // 2
    lent = [ledger.borrow(each) for _ in range(8) for each in (A, B)]
    assert sum(lent[-2:]) == 64_000


def test_what_is_given_back_is_anothers() -> None:
    ledger = Told(A, B)
    ledger.borrow(A)
    opened = ledger.record.traffic.opened
    assert ledger.ask(A, WindowAsk(opened, 100, 100, 100)).traffic.free == 63_900
    told = ledger.ask(B, WindowAsk(opened, 0, 0, 64_000)).traffic
    assert (told.granted, told.others) == (31_950, 100)


def test_an_older_request_changes_nothing_and_is_told_the_last_one() -> None:
    ledger = Told(A, B)
    ledger.borrow(A)
    before = ledger.record
    told = ledger.ask(A, WindowAsk(before.traffic.opened, 0, 0, 0), q=0)
    assert (ledger.record, told.q, told.traffic.granted) == (before, 1, 32_000)


def test_an_exit_put_back_from_a_backup_is_heard_though_its_number_is_smaller() -> None:
    """Its epoch is higher. What the ledger had heard that it used stays used."""
    ledger = Told(A, B)
    ledger.borrow(A)
    ledger.ask(A, WindowAsk(BEGAN, 9_000, 32_000, 32_000), q=50)
    told = ledger.ask(A, WindowAsk(BEGAN, 100, 0, 10_000), q=3, e=1).traffic
    assert (told.used, told.granted) == (9_000, 10_000)


def test_of_windows_that_overlap_the_first_is_everyones() -> None:
    """One that an exit opened while it was cut off; what was used in one that is over counts no more."""
    ledger = Told(A, B)
    ledger.borrow(A)
    told = ledger.ask(B, WindowAsk(BEGAN - 500_000, 7_000, 0, 8_000)).traffic
    assert (told.opened, told.used, told.granted) == (BEGAN - 500_000, 7_000, 8_000)
    ledger.now = BEGAN + LENGTH_MS
    told = ledger.ask(A, WindowAsk(BEGAN, 9_000, 32_000, 40_000)).traffic
    assert (told.opened, told.used, told.others, told.granted) == (ledger.now, 0, 0, 31_000)


def test_a_window_that_an_exits_clock_is_ahead_with_changes_nothing() -> None:
    ledger = Told(A, B)
    ledger.borrow(A)
    told = ledger.ask(B, WindowAsk(BEGAN + LENGTH_MS, 5_000, 0, 9_000)).traffic
    assert (told.opened, told.used, told.granted) == (BEGAN, 0, 0)


@pytest.mark.parametrize(("lends", "free"), [(True, 63_000), (False, 32_000)])
def test_a_lapse_frees_what_was_not_used_if_it_may(lends: bool, free: int) -> None:
    """Nothing is freed where exits that are cut off are to use nothing more; sessions are not in any case."""
    ledger = Told(A, B, lends=lends)
    told = ledger.ask(A, WindowAsk(0, 0, 0, 32_000), live=2, wanted=2)
    ledger.ask(A, WindowAsk(told.traffic.opened, 1_000, 32_000, 32_000), live=2, wanted=2)
    ledger.now += LAPSES_MS
    told = ledger.ask(B, WindowAsk(BEGAN), wanted=1)
    assert (told.traffic.free, told.live) == (free, 0)


def test_a_forgotten_exit_has_what_it_used() -> None:
    """Its sessions and the rest of what it was lent are free."""
    ledger = Told(A, B)
    told = ledger.ask(A, WindowAsk(0, 0, 0, 32_000), live=2, wanted=2)
    ledger.ask(A, WindowAsk(told.traffic.opened, 1_000, 32_000, 32_000), live=2, wanted=2)
    ledger.members = (B,)
    told = ledger.ask(B, WindowAsk(told.traffic.opened, 0, 0, 0), wanted=2)
    assert (told.traffic.free, told.traffic.others, told.live) == (63_000, 1_000, 2)


def test_before_all_have_told_each_has_a_share() -> None:
    """Of what others are known to have left; then what they told is theirs."""
    ledger = Told(A, B, C, untold=(A, B, C))
    lent = [ledger.ask(A, WindowAsk(BEGAN, 0, 0, 64_000, others=4_000)).traffic for _ in range(3)]
    assert [(each.granted, each.free, each.others) for each in lent] == [(20_000, 0, 4_000)] * 3
    told = ledger.ask(B, WindowAsk(BEGAN, 6_000, 10_000, 64_000, others=0)).traffic
    assert (told.used, told.others) == (6_000, 0)
    assert told.granted <= 10_000 + 64_000 // 3
    ledger.told = [C]
    assert ledger.ask(A, WindowAsk(BEGAN, 0, 20_000, 64_000)).traffic.granted > 20_000
    assert ledger.record.complete


def test_before_all_have_told_what_may_be_lent_again_makes_no_share_larger() -> None:
    """It is free, so it is not what was taken."""
    ledger = Told(A, B, C, untold=(A, B, C))
    assert ledger.borrow(A) == 64_000 // 3
    ledger.now += LAPSES_MS
    assert ledger.borrow(B) == 64_000 // 3
    told = ledger.ask(B, WindowAsk(BEGAN, 0, 64_000 // 3, 64_000)).traffic
    assert (told.granted, told.free) == (64_000 // 3, 0)


def test_live_sessions_are_counted_over_all_exits() -> None:
    """One that ended on one exit is free on the other, once it has told."""
    ledger = Told(A, B)
    assert ledger.ask(A, WindowAsk(), wanted=1).live == 1
    assert ledger.ask(B, WindowAsk(), wanted=1).live == 1
    third = ledger.ask(B, WindowAsk(), live=1, wanted=2)
    assert (third.live, third.live_free, third.live_others) == (1, 0, 1)
    assert ledger.ask(A, WindowAsk()).live_free == 1
    assert ledger.ask(B, WindowAsk(), live=1, wanted=2).live == 2
