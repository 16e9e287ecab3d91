"""Who may open a session, and which sessions end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance import config
from appliance.clock import Moment
from appliance.entities import Account, Reason, Session, State, Tier
from appliance.errors import InvalidRequest, LiveSessionLimitReached
from appliance.policy import admission, termination
from appliance.policy.quota import Quota
from tests.unit.a_session import A_SESSION

TIER = replace(config.load("", {}, "host").tiers["free"], max_live_sessions=2, max_session=3600, idle_timeout=300)
ADA = Account("acc_1", "ada", Tier.FREE, False, 0)
NOW = 5_000

UNLIMITED = Quota(0, 0, 0, 0, 0, 0)


def sessions(*states: State) -> list[Session]:
    return [
        replace(A_SESSION, id=f"ses_{n}", state=state, public_key=n.to_bytes(32, "little"))
        for n, state in enumerate(states, start=1)
    ]


@pytest.mark.parametrize(
    ("states", "admitted"),
    [
        ((), True),
        ((State.LIVE,), True),
        ((State.LIVE, State.LIVE), False),
        ((State.LIVE, State.PENDING), False),
        ((State.LIVE, State.CLOSING, State.CLOSING), True),
    ],
)
def test_live_limit(states: tuple[State, ...], admitted: bool) -> None:
    """Live and pending sessions count toward the limit, ending ones do not."""
    decision = admission.decide(ADA, TIER, sessions(*states), None, UNLIMITED, NOW)
    assert isinstance(decision, admission.Admit) is admitted
    assert admitted or isinstance(decision.error, LiveSessionLimitReached)  # type: ignore[union-attr]  # refused


def test_unlimited() -> None:
    """A limit of 0 is none."""
    own = sessions(*[State.LIVE] * 500)
    unlimited = replace(TIER, max_live_sessions=0)
    assert isinstance(admission.decide(ADA, unlimited, own, None, UNLIMITED, NOW), admission.Admit)


def test_replaced_does_not_count() -> None:
    """At the limit an own session may still be replaced, and only it makes room."""
    own = sessions(State.LIVE, State.LIVE)
    assert admission.decide(ADA, TIER, own, own[0], UNLIMITED, NOW) == admission.Admit(NOW + 3_600_000, own[0])
    own = sessions(State.LIVE, State.LIVE, State.LIVE)
    assert isinstance(admission.decide(ADA, TIER, own, own[0], UNLIMITED, NOW), admission.Refuse)


@pytest.mark.parametrize("states", [(), (State.LIVE, State.LIVE)])
def test_anothers_key(states: tuple[State, ...]) -> None:
    """Another account's key is at fault before any limit is."""
    holder = replace(A_SESSION, account_id="acc_2")
    decision = admission.decide(ADA, TIER, sessions(*states), holder, UNLIMITED, NOW)
    assert isinstance(decision, admission.Refuse)
    assert isinstance(decision.error, InvalidRequest)
    assert "client_public_key" in str(decision.error)


@pytest.mark.parametrize(("max_session", "seconds"), [(1, 1), (30 * 86_400, 30 * 86_400), (31 * 86_400, 30 * 86_400)])
def test_lifetime(max_session: int, seconds: int) -> None:
    """The tier's max_session from now, and never beyond 30 days."""
    decision = admission.decide(ADA, replace(TIER, max_session=max_session), [], None, UNLIMITED, NOW)
    assert decision == admission.Admit(NOW + seconds * 1000, None)


EXPIRES, QUIET = A_SESSION.expires_at, A_SESSION.quiet_since_ms
ENDINGS = [
    ("fresh", Moment(0, QUIET, "boot"), 300, None),
    ("a millisecond before the cutoff", Moment(EXPIRES - 1, QUIET, "boot"), 300, None),
    ("at the cutoff", Moment(EXPIRES, QUIET, "boot"), 300, Reason.EXPIRED),
    ("long after it", Moment(EXPIRES * 9, QUIET, "boot"), 300, Reason.EXPIRED),
    ("quiet for exactly the timeout", Moment(0, QUIET + 300_000, "boot"), 300, None),
    ("quiet for more", Moment(0, QUIET + 300_001, "boot"), 300, Reason.IDLE),
    ("timeout off", Moment(0, QUIET + 10**9, "boot"), 0, None),
    ("another boot", Moment(0, QUIET + 10**9, "another"), 300, None),
    ("expired in another boot", Moment(EXPIRES, QUIET, "another"), 300, Reason.EXPIRED),
    ("wall clock far back", Moment(-(10**12), QUIET, "boot"), 300, None),
    ("both: the cutoff is said", Moment(EXPIRES, QUIET + 10**9, "boot"), 300, Reason.EXPIRED),
]


@pytest.mark.parametrize(("now", "timeout", "reason"), [e[1:] for e in ENDINGS], ids=[e[0] for e in ENDINGS])
def test_termination(now: Moment, timeout: int, reason: Reason | None) -> None:
    """Expiry goes by the wall clock, idleness by the boot clock of one boot."""
    assert termination.decide(A_SESSION, replace(TIER, idle_timeout=timeout), None, now) == reason
