"""Who has to end at a look, and when the next look is due."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from appliance.config.load import parse_settings
from appliance.config.plans import Terms
from appliance.domain.clock import Moment
from appliance.domain.entities import Account, Reason, Session, State
from appliance.domain.tiers import Tier
from appliance.domain.windows import Window, Windows
from appliance.metering.meter import Count, Observation
from appliance.network.wireguard.tunnel import Dump, PeerState
from appliance.sessions.enforcement import Enforcement
from appliance.store.live import LiveSessions
from tests.support.unit.a_session import A_SESSION
from tests.support.unit.session_rows import rows_of

if TYPE_CHECKING:
    from appliance.config.load import TierSettings

NOW = Moment(wall_ms=5_000_000, boot_ms=77_000, boot_id="boot")
MB = 1_000_000
SETTINGS = parse_settings("", {}, "exit")
FREE = SETTINGS.tiers["free"]
LIMITED = replace(FREE, bytes_limit=500 * MB, seconds_limit=60, idle_timeout=10)
UNLIMITED = replace(FREE, bytes_limit=0, seconds_limit=0, idle_timeout=0)
SESSION = structs.replace(A_SESSION, quiet_since_ms=70_000)


def account(*, bytes_used: int = 0, time_used_ms: int = 0) -> Account:
    windows = Windows(Window(NOW.wall_ms - 1000, bytes_used), Window(NOW.wall_ms - 1000, time_used_ms))
    return Account("acc_1", "ada", Tier.FREE, False, 0, windows)


def terms(tier: TierSettings) -> Terms:
    return Terms(replace(SETTINGS, tiers={**SETTINGS.tiers, "free": tier}))


def enforcement(owner: Account, *sessions: Session, tier: TierSettings = LIMITED) -> Enforcement:
    live = LiveSessions()
    live.load(rows_of(sessions, [owner]), NOW)
    return Enforcement(live, terms(tier))


def seen(*keys: bytes, total: int = 0, now: Moment = NOW) -> Observation:
    peers = {key: PeerState(key, frozenset(), 0, 0, 0) for key in keys}
    return Observation(Dump(4, bytes(32), 51820, peers), now, Count([], {}, {}), total, relabels=False)


def later(ms: int) -> Moment:
    return replace(NOW, wall_ms=NOW.wall_ms + ms, boot_ms=NOW.boot_ms + ms)


@pytest.mark.parametrize(("shown", "reason"), [(True, Reason.IDLE), (False, None)])
def test_idle_only_where_the_peer_was_seen(*, shown: bool, reason: Reason | None) -> None:
    """A quiet session ends; one whose peer this dump does not show may have been heard, and goes on."""
    found = enforcement(account(), SESSION)
    now = later(10_000)
    observation = seen(*([SESSION.public_key] if shown else []), now=now)
    assert found.decide(observation, now).get(SESSION.public_key) == reason
    assert found.decide(None, now) == {}


def test_a_used_up_window_ends_all_sessions_of_the_account() -> None:
    """All sessions of an account that has used up a window end; one that is closing keeps its reason."""
    closing = structs.replace(
        SESSION, id="ses_2", public_key=b"\x02" * 32, state=State.CLOSING, reason=Reason.CLOSED, counted_until_ms=0
    )
    found = enforcement(account(bytes_used=500 * MB), SESSION, closing)
    assert found.decide(seen(), NOW) == {
        SESSION.public_key: Reason.QUOTA_EXCEEDED,
        closing.public_key: Reason.CLOSED,
    }


@pytest.mark.parametrize(
    ("bytes_used", "time_used_ms", "sessions", "seconds"),
    [
        pytest.param(0, 0, 1, 0.9, id="far from both limits"),
        pytest.param(400 * MB, 0, 1, 0.8, id="100 MB left: 0.8 s at a gigabit"),
        pytest.param(499 * MB, 0, 1, 0.25, id="close to the limit"),
        pytest.param(0, 59_700, 1, 0.3, id="0.3 s left"),
        pytest.param(0, 59_700, 2, 0.15, id="0.3 s left for two"),
        pytest.param(0, 59_999, 1, 0.02, id="a moment left"),
    ],
)
def test_the_next_look_comes_before_a_limit_is_far_passed(
    bytes_used: int, time_used_ms: int, sessions: int, seconds: float
) -> None:
    """The next look comes before the account can be far past its limit, and when its time is over."""
    several = [structs.replace(SESSION, id=f"ses_{n}", public_key=bytes([n]) * 32) for n in range(1, sessions + 1)]
    found = enforcement(account(bytes_used=bytes_used, time_used_ms=time_used_ms), *several)
    found.decide(seen(), NOW)
    assert found.seconds_to_next_look(NOW) == seconds
    # What has passed since is taken off.
    assert found.seconds_to_next_look(later(10)) == pytest.approx(max(0.02, seconds - 0.01))


def test_next_look_after_something_fast() -> None:
    """400 MB left are 0.4 s once a gigabyte a second was seen."""
    found = enforcement(account(bytes_used=100 * MB), SESSION)
    found.decide(seen(), NOW)
    assert found.seconds_to_next_look(NOW) == 0.9
    found.decide(seen(total=10**9, now=later(1000)), later(1000))
    assert found.seconds_to_next_look(later(1000)) == 0.4


def test_the_next_look_is_not_after_a_session_expires() -> None:
    """The next look is not later than the end of a session's life."""
    found = enforcement(account(), structs.replace(SESSION, expires_at=NOW.wall_ms + 100), tier=UNLIMITED)
    found.decide(seen(), NOW)
    assert found.seconds_to_next_look(NOW) == 0.1


def test_a_session_begins_between_two_looks() -> None:
    """Its account's time may be over before the look that was planned; one without limits changes nothing."""
    live = LiveSessions()
    owner = account(time_used_ms=59_700)
    live.load(rows_of([], [owner]), NOW)
    found = Enforcement(live, terms(LIMITED))
    found.decide(seen(), NOW)
    assert found.seconds_to_next_look(NOW) == 0.9
    live.put(SESSION, owner)
    assert found.opened(SESSION, NOW)
    assert found.seconds_to_next_look(NOW) == 0.3
    assert not found.opened(SESSION, NOW)
    other = enforcement(account(), SESSION, tier=UNLIMITED)
    other.decide(seen(), NOW)
    assert not other.opened(SESSION, NOW)


def exceeded_later(live: LiveSessions, owner: Account) -> None:
    """A request has committed what it read: the account is at its limit, and no reading of a tick says so."""
    live.apply_count([], {owner.id: structs.replace(owner, windows=account(bytes_used=LIMITED.bytes_limit).windows)})


def test_charged_by_a_request() -> None:
    """What somebody else than the tick has counted into the account's windows is looked at as well."""
    live, owner = LiveSessions(), account()
    live.load(rows_of([SESSION], [owner]), NOW)
    found = Enforcement(live, terms(LIMITED))
    assert found.decide(seen(SESSION.public_key), NOW) == {}
    exceeded_later(live, owner)
    assert found.decide(seen(SESSION.public_key), later(1000)) == {SESSION.public_key: Reason.QUOTA_EXCEEDED}


def test_clock_set_back_into_a_used_up_window() -> None:
    """A window that was over is open again, and used up: who is live in it ends at the next look."""
    used_up = account(bytes_used=LIMITED.bytes_limit)
    week_ms = LIMITED.bytes_window * 1000
    after = Moment(NOW.wall_ms + week_ms, NOW.boot_ms, NOW.boot_id)
    found = enforcement(used_up, structs.replace(SESSION, expires_at=after.wall_ms * 2))
    assert found.decide(seen(SESSION.public_key, now=after), after) == {}
    back = replace(after, wall_ms=NOW.wall_ms, boot_ms=NOW.boot_ms + 1000)
    assert found.decide(seen(SESSION.public_key, now=back), back) == {SESSION.public_key: Reason.QUOTA_EXCEEDED}


def test_what_is_far_from_its_limits_is_not_measured_again() -> None:
    """An account that was counted is measured where it may be near a limit, or where a session carries again; of the
    others, what is left of the bytes is taken off."""
    live, owner = LiveSessions(), account()
    live.load(rows_of([SESSION], [owner]), NOW)
    found = Enforcement(live, terms(LIMITED))
    found.decide(seen(SESSION.public_key), NOW)
    for used, seconds in ((100 * MB, 0.9), (400 * MB, 0.8), (499 * MB, 0.25)):
        counted = Count([], {}, {owner.id: account(bytes_used=used)})
        found.decide(replace(seen(), count=counted), NOW)
        assert found.seconds_to_next_look(NOW) == seconds
    another = structs.replace(SESSION, id="ses_2", public_key=b"\x02" * 32)
    live.put(another, owner)
    counted = Count([], {}, {owner.id: account(time_used_ms=59_700)})
    found.decide(replace(seen(), count=counted, resumed={owner.id}), NOW)
    assert found.seconds_to_next_look(NOW) == 0.15


def test_time_passes_for_the_sessions_that_carry() -> None:
    """The time that is left is that of the sessions whose tunnels carry: of two, one; of one that carries no longer,
    none of it passes."""
    asleep = structs.replace(SESSION, id="ses_2", public_key=b"\x02" * 32, carries_until_ms=0)
    owner = account(time_used_ms=59_700)
    for sessions, seconds in (([SESSION, asleep], 0.3), ([asleep], 0.9)):
        found = enforcement(owner, *sessions)
        found.decide(seen(), NOW)
        assert found.seconds_to_next_look(NOW) == seconds


def test_a_session_that_carries_again_brings_the_end_nearer() -> None:
    """The look that finds its handshake counts it among those for which time passes, before anything is committed."""
    asleep = structs.replace(SESSION, id="ses_2", public_key=b"\x02" * 32, carries_until_ms=0)
    owner = account(time_used_ms=59_700)
    found = enforcement(owner, SESSION, asleep)
    found.decide(seen(), NOW)
    assert found.seconds_to_next_look(NOW) == 0.3
    awake = structs.replace(asleep, counted_until_ms=NOW.boot_ms, carries_until_ms=NOW.boot_ms + 180_000)
    count = Count([], {awake.public_key: awake}, {owner.id: owner})
    found.decide(replace(seen(), count=count, resumed={owner.id}), NOW)
    assert found.seconds_to_next_look(NOW) == 0.15
