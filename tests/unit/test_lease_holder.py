"""What an exit asks of an account's limits, and what it may use by itself, decision by decision."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from appliance.domain.windows import CLOSED, Window, Windows
from appliance.fleet.quota import holder
from appliance.fleet.quota.holder import AGAIN_MS, QUIET_MS, REFRESH_MS, SHARE_MS, Borrowed, Own, Sharing
from appliance.fleet.quota.messages import LeaseAsk, LeaseTold, WindowTold
from tests.support.fleet.escrow_model import ModelLimits

LIMITS = ModelLimits(bytes_limit=64_000, bytes_window=1_000, seconds_limit=0, max_live_sessions=2)
LENGTH_MS, OPENED = 1_000_000, 5_000_000
TWO = Sharing(2)


def own(used: int = 0, live: int = 1, wanted: int = 1) -> Own:
    return Own("acc_1", Windows(Window(OPENED, used), CLOSED), live, wanted)


def asked(borrowed: Borrowed, used: int = 0, now: int = 1_000) -> tuple[Borrowed, LeaseAsk]:
    after, ask = holder.ask(borrowed, own(used), LIMITS, TWO, now, urgent=True)
    assert ask is not None
    return after, ask


def answer(ask: LeaseAsk, granted: int, free: int, used: int = 0) -> LeaseTold:
    return LeaseTold(ask.e, ask.q, WindowTold(OPENED, granted, used, free, 0), WindowTold(), 1, 1, 0)


def lent(granted: int = 10_000, free: int = 40_000) -> Borrowed:
    borrowed, ask = asked(Borrowed())
    return holder.told(borrowed, answer(ask, granted, free), own(), 1_100)


def left(borrowed: Borrowed, used: int, *, cut_off: bool = False, strict: bool = False) -> tuple[int, bool, bool]:
    grant = holder.allowance(borrowed, own(used), LIMITS, Sharing(2, strict), cut_off=cut_off)
    return grant.left_bytes, grant.more_bytes, grant.bytes_gone


def test_more_is_asked_for_when_less_than_half_is_left() -> None:
    """As much as a minute takes at the fastest rate of late; then nothing more before there is an answer, or 2 s."""
    borrowed = lent()
    assert holder.ask(borrowed, own(4_000), LIMITS, TWO, 2_000)[1] is None
    borrowed, ask = holder.ask(borrowed, own(6_000), LIMITS, TWO, 3_000)
    assert ask is not None
    assert (ask.traffic.used, ask.traffic.granted) == (6_000, 10_000)
    assert ask.traffic.want == 6_000 + 60 * 3_000  # 6,000 in the 2 s since it began to ask
    assert holder.ask(borrowed, own(9_000), LIMITS, TWO, 3_000 + AGAIN_MS - 1)[1] is None
    again = holder.ask(borrowed, own(9_000), LIMITS, TWO, 3_000 + AGAIN_MS)[1]
    assert again is not None
    assert again.q == ask.q + 1


def test_what_is_idle_is_given_back_in_time() -> None:
    """First here, then it is told; a little is kept."""
    borrowed, ask = holder.ask(lent(), own(), LIMITS, TWO, 1_100 + REFRESH_MS)
    assert ask is not None
    assert borrowed.traffic.granted == ask.traffic.granted == ask.traffic.want == 1_000


def test_a_quiet_account_is_told_less_often() -> None:
    """What little it has used is no news to other exits; an eighth of what it had left is."""
    given_back, ask = holder.ask(lent(), own(), LIMITS, TWO, 1_100 + REFRESH_MS)
    assert ask is not None
    least = replace(given_back, waiting_ms=None, told_ms=40_000, traffic=replace(given_back.traffic, had=1_000))
    later = 40_000 + REFRESH_MS
    assert holder.ask(least, own(124), LIMITS, TWO, later)[1] is None
    assert holder.ask(least, own(125), LIMITS, TWO, later)[1] is not None
    assert holder.ask(least, own(0), LIMITS, TWO, 40_000 + QUIET_MS)[1] is not None


def test_all_is_given_back_here_before_it_is_told() -> None:
    borrowed, ask = holder.give_back(lent(), own(3_000, live=0, wanted=0), 2_000)
    assert (borrowed.traffic.granted, borrowed.slots.held) == (3_000, 0)
    assert (ask.traffic.want, ask.traffic.used, ask.live_wanted) == (3_000, 3_000, 0)


@pytest.mark.parametrize(
    ("free", "cut_off", "strict", "expected"),
    [
        (40_000, False, False, (-1, True, False)),  # the answer is awaited
        (0, False, False, (-1, False, True)),
        (40_000, True, False, (19_999, False, False)),  # half of what was free
        (40_000, True, True, (-1, False, True)),
    ],
)
def test_a_limit_is_exceeded_when_nothing_more_can_be_lent(
    free: int, cut_off: bool, strict: bool, expected: tuple[int, bool, bool]
) -> None:
    assert left(lent(free=free), 10_001, cut_off=cut_off, strict=strict) == expected


def test_while_an_answer_is_awaited_no_more_than_the_share_is_used() -> None:
    borrowed = lent()
    assert left(borrowed, 29_999) == (-19_999, True, False)
    assert left(borrowed, 30_000) == (-20_000, False, True)


def test_it_is_cut_off_after_a_while_without_an_answer() -> None:
    """However often it has asked since."""
    borrowed, _ = asked(lent(), now=10_000)
    borrowed, _ = asked(borrowed, now=12_000)
    assert not holder.is_cut_off(borrowed, TWO, 10_000 + SHARE_MS - 1)
    assert holder.is_cut_off(borrowed, TWO, 10_000 + SHARE_MS)
    assert not holder.is_cut_off(lent(), TWO, 10**9)


def test_an_answer_to_an_earlier_request_does_not_count() -> None:
    borrowed, first = asked(lent(), now=10_000)
    borrowed, _ = asked(borrowed, now=12_000)
    assert holder.told(borrowed, answer(first, 60_000, 0), own(), 12_100) == borrowed


def test_one_that_was_put_back_from_a_backup_has_nothing_before_it_is_told() -> None:
    """Also if only the answer shows that; the next request is a later one."""
    borrowed = holder.restored(lent())
    assert left(borrowed, 5_000, cut_off=True, strict=True) == (-5_000, False, True)
    borrowed, ask = asked(lent())
    later = replace(answer(ask, 30_000, 0), e=ask.e + 1, q=ask.q + 5)
    borrowed = holder.told(borrowed, later, own(), 1_200)
    assert borrowed.traffic.granted == 0
    assert (asked(borrowed)[1].e, asked(borrowed)[1].q) == (later.e, later.q + 1)


@pytest.mark.parametrize(
    ("own_window", "told", "expected"),
    [
        (CLOSED, WindowTold(OPENED), Window(OPENED)),
        (Window(OPENED, 500), WindowTold(OPENED - 10, used=400), Window(OPENED - 10, 500)),
        (Window(OPENED, 500), WindowTold(OPENED, used=800), Window(OPENED, 900)),  # it was put back from a backup
        (Window(OPENED, 500), WindowTold(OPENED + LENGTH_MS), Window(OPENED + LENGTH_MS, 0, OPENED + LENGTH_MS)),
        (Window(OPENED, 500), WindowTold(OPENED - LENGTH_MS), Window(OPENED, 500)),
        (Window(OPENED, 500), WindowTold(), Window(OPENED, 500)),
    ],
    ids=["closed", "earlier", "more used", "over", "the ledger's is over", "none"],
)
def test_windows_open_when_they_do_for_all(own_window: Window, told: WindowTold, expected: Window) -> None:
    """400 were used when it asked."""
    assert holder.adopted(own_window, told, 400, LENGTH_MS) == expected
