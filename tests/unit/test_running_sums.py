"""What an account's sessions use, from sums: the same as from a look at each of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from appliance.domain import accounting, quota
from appliance.domain.accounting import Reading
from appliance.domain.charges import Amount
from appliance.domain.clock import Moment
from appliance.domain.entities import Account, State
from appliance.domain.tiers import Tier
from appliance.domain.windows import Window, Windows
from appliance.metering import usage
from appliance.store.live import LiveSessions
from tests.support.unit.a_session import A_SESSION
from tests.support.unit.session_rows import rows_of

if TYPE_CHECKING:
    from appliance.domain.entities import Session

START = Moment(1_790_000_000_000, 5_000_000, "boot")
TIER = SimpleNamespace(bytes_limit=10**6, bytes_window=86_400, seconds_limit=5000, seconds_window=3600)
KEYS = range(6)
times = st.integers(0, 9_000_000)
steps = st.lists(
    st.tuples(st.sampled_from(("open", "close", "count", "shake", "move", "measure")), st.sampled_from(KEYS), times)
)
since = st.just(0) | st.integers(-8_000_000, 0).map(lambda ms: START.wall_ms + ms)
opened_at = st.integers(-8_000_000, 2_000_000).map(lambda ms: START.wall_ms + ms)
# What is used is in a window that is open.
windows = st.builds(Window, since=since) | st.builds(
    Window, opened_at=opened_at, used=st.integers(0, 10**7), since=since
)


def later(ms: int) -> Moment:
    return Moment(START.wall_ms + ms, START.boot_ms + ms, START.boot_id)


def opened(key: int, account: Account, now: Moment, carries_ms: int = 2**50) -> Session:
    return structs.replace(
        A_SESSION,
        id=f"ses_{key}_{now.boot_ms}",
        account_id=account.id,
        public_key=bytes([key + 1]) * 32,
        state=State.LIVE,
        counted_until_ms=now.boot_ms,
        counted_boot_id=now.boot_id,
        carries_until_ms=now.boot_ms + carries_ms,
    )


def counted(session: Session, now: Moment, carries_ms: int = 0) -> Reading:
    """The session's time counted; with `carries_ms` after a handshake."""
    amount = accounting.running(session, now)
    after = accounting.counted(session, amount, now)
    after = structs.replace(after, carries_until_ms=max(after.carries_until_ms, now.boot_ms + carries_ms))
    return Reading(Amount(amount.time_ms), 0, 0, after, None)


@settings(deadline=None)
@given(
    steps=steps, time=windows, paces=st.integers(1, 1000), carries_ms=st.sampled_from((0, 180_000, 2_000_000, 10**9))
)
def test_sums_are_what_a_recount_finds(
    steps: list[tuple[str, int, int]], time: Window, paces: int, carries_ms: int
) -> None:
    """Whatever opens, ends, shakes hands, is counted and carries no longer, in whichever window: use and resets are
    equal to the millisecond, and those are summed that carry."""
    live = LiveSessions()
    ada = Account("acc_1", "ada", Tier.FREE, False, 0, Windows(time=time))
    live.load(rows_of([], [ada]), START)
    at = 0
    for what, key, ms in steps:
        at += ms // paces
        now, public_key = later(at), bytes([key + 1]) * 32
        known = live.get(public_key)
        if what == "open":
            live.put(opened(key, ada, now, carries_ms), ada)
        elif known is not None and what == "close":
            live.drop(public_key)
        elif known is not None and what == "count":
            live.apply_count([counted(known, now)], {})
        elif known is not None and what == "shake":
            live.apply_count([counted(known, now, carries_ms)], {})
        elif known is not None and what == "move":
            live.put(structs.replace(known, state=State.CLOSING))
        uses = accounting.unspent(live.of_account(ada.id), live.heartbeat, now)
        recount = quota.measure(ada, TIER, uses, now.wall_ms)  # type: ignore[arg-type]  # the limits that it reads
        assert usage.in_memory(live, ada, TIER, now) == recount  # type: ignore[arg-type]
        assert_summed(live, ada, now)
        assert live.number_of(ada.id) == len(live.of_account(ada.id))
        assert live.number_live(ada.id) == sum(s.state is State.LIVE for s in live.of_account(ada.id))


def assert_summed(live: LiveSessions, account: Account, now: Moment) -> None:
    """The sums are of those that carry; and those that stopped are told until they are counted."""
    sums, sessions = live.running(account.id, now), live.of_account(account.id)
    assert sums is not None
    carrying = [s.counted_until_ms for s in sessions if s.carries_until_ms > max(now.boot_ms, s.counted_until_ms)]
    assert (sums.number, sums.counted_until_ms, sums.first_ms) == (
        *(len(carrying), sum(carrying), min(carrying, default=None)),
    )
    stopped = [(s.counted_until_ms, s.carries_until_ms) for s in sessions]
    assert sorted(sums.stopped) == sorted(each for each in stopped if each[0] < each[1] <= now.boot_ms)


def test_another_boot_is_not_summed() -> None:
    """Sessions that were counted in another boot are looked at one by one."""
    live = LiveSessions()
    ada = Account("acc_1", "ada", Tier.FREE, False, 0)
    live.load(rows_of([opened(0, ada, START)], [ada]), START)
    assert live.running(ada.id, START) is not None
    assert live.running(ada.id, Moment(START.wall_ms, START.boot_ms, "another")) is None


def test_a_window_that_began_meanwhile_is_summed_once() -> None:
    """Where sessions ran on into another window, each is looked at once, not at every question that follows."""
    live, began = LiveSessions(), START.wall_ms - 1_800_000
    ada = Account("acc_1", "ada", Tier.FREE, False, 0, Windows(time=Window(opened_at=began)))
    live.load(rows_of([opened(key, ada, START) for key in KEYS], [ada]), START)
    marks = []
    for ms in (1_000, 1_900_000, 2_000_000, 2_100_000, 5_500_000):
        quota_now = usage.in_memory(live, ada, TIER, later(ms))  # type: ignore[arg-type]  # the limits that it reads
        into_window = (ms + 1_800_000) % 3_600_000 if ms > 1_800_000 else ms
        assert quota_now.time_used_ms == len(KEYS) * into_window
        marks.append(live._rows.owners.of(ada.id).mark)
    assert marks[0] is None
    assert marks[1] is marks[2] is marks[3] is not None
    assert marks[4] is not marks[3]
