"""Exits that share an account's limits, in a model with real decisions, never use more than the bound says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from appliance.fleet.quota import escrow, holder, outdated
from tests.support.fleet.escrow_model import Broken, run, usable

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.windows import Window
    from appliance.fleet.quota.escrow import LedgerFacts, Lending, QuotaRecord
    from appliance.fleet.quota.holder import Borrowed, Lease
    from appliance.fleet.quota.messages import LeaseAsk, LeaseTold, WindowAsk, WindowTold

SCHEDULES, CALM_ONES = 15, 2
ENOUGH = 0.9  # of a quota, which is to be usable
UNTIL_FOUND = 50  # schedules in which a mistake has to show


def test_no_schedule_goes_beyond_the_bound(show: Callable[[str], None]) -> None:
    """Of bytes, session time and live sessions, whatever is lost, late, doubled, killed, restored or forgotten;
    `python -m tests.faults.escrow` runs 10,000."""
    worst = max(max(run(seed).worst) for seed in range(SCHEDULES))
    show(f"most that was used of a limit: {worst:.3f}")


def test_nearly_all_of_a_quota_is_usable_while_all_are_connected(show: Callable[[str], None]) -> None:
    """Also with exits that have sessions which move nothing."""
    least = min(usable(seed) for seed in range(CALM_ONES))
    show(f"least that was used: {least:.3f}")
    assert least >= ENOUGH


def any_answer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    right = holder.told

    def told(borrowed: Borrowed, answer: LeaseTold, *rest: object) -> Borrowed:
        return right(borrowed, replace(answer, e=borrowed.e, q=borrowed.q), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(holder, "told", told)


def a_lapse_always_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    right = escrow._lending

    def lending(record: QuotaRecord, node: str, given: LedgerFacts) -> Lending:
        return right(record, node, replace(given, lends=True))

    monkeypatch.setattr(escrow, "_lending", lending)


def what_is_given_back_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    right = holder._given_back

    def given_back(lease: Lease, window: Window) -> tuple[Lease, WindowAsk]:
        return lease, right(lease, window)[1]

    monkeypatch.setattr(holder, "_given_back", given_back)


def a_lost_memory_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = escrow.decide

    def decide(record: QuotaRecord, node: str, asked: LeaseAsk, given: LedgerFacts) -> object:
        return right(replace(record, complete=True), node, asked, given)

    monkeypatch.setattr(escrow, "decide", decide)


def older_requests_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    right = escrow.decide

    def decide(record: QuotaRecord, node: str, asked: LeaseAsk, given: LedgerFacts) -> object:
        others = {each: heard for each, heard in record.heard.items() if each != node}
        return right(replace(record, heard=others), node, asked, given)

    monkeypatch.setattr(escrow, "decide", decide)


def an_open_window_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    right = holder.adopted

    def adopted(window: Window, answer: WindowTold, asked_used: int, length_ms: int) -> Window:
        return right(window, answer, asked_used, length_ms) if window.opened_at is None else window

    monkeypatch.setattr(holder, "adopted", adopted)


def a_forgotten_exits_part_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(escrow, "_without_forgotten", lambda record, _given: record)


def a_record_of_what_is_lent_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outdated, "_is_over", lambda *_: True)


def a_record_of_sessions_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    right = outdated.is_outdated

    def is_outdated(record: QuotaRecord, given: LedgerFacts) -> bool:
        return right(replace(record, live={}), given)

    monkeypatch.setattr(outdated, "is_outdated", is_outdated)


def a_record_is_deleted_that_would_be_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    right = outdated.is_outdated

    def is_outdated(record: QuotaRecord, given: LedgerFacts) -> bool:
        return right(record, replace(given, told=given.members))

    monkeypatch.setattr(outdated, "is_outdated", is_outdated)


@pytest.mark.parametrize(
    ("mistake", "shown_by"),
    [
        (any_answer_counts, 18),
        (a_lapse_always_frees, 58),
        (what_is_given_back_is_kept, 7),
        (a_lost_memory_is_not_noticed, 6),
        (older_requests_are_heard, 11),
        (an_open_window_stays_as_it_is, 7),
        (a_forgotten_exits_part_is_kept, 5),
        (a_record_of_what_is_lent_is_deleted, 2),
        (a_record_of_sessions_is_deleted, 2),
        (a_record_is_deleted_that_would_be_incomplete, 328),
    ],
)
def test_mistakes_are_found(
    mistake: Callable[[pytest.MonkeyPatch], None], shown_by: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model finds what would lend the same bytes twice, or to nobody. `shown_by`: the first schedule that did."""
    mistake(monkeypatch)
    with pytest.raises(Broken):
        _run_from(shown_by)


def _run_from(first: int) -> None:
    for seed in range(first, first + UNTIL_FOUND):
        run(seed)
