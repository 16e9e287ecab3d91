"""Who may open a session."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from appliance.config.load import parse_settings
from appliance.domain import admission
from appliance.domain.entities import Account, Session, State
from appliance.domain.errors import InvalidRequest, LiveSessionLimitReached, QuotaExceeded
from appliance.domain.quota import Quota
from appliance.domain.tiers import Tier
from tests.support.unit.a_session import A_SESSION

TIER = replace(parse_settings("", {}, "host").tiers["free"], max_live_sessions=2, max_session=3600)
ADA = Account("acc_1", "ada", Tier.FREE, False, 0)
NOW = 5_000

UNLIMITED = Quota(0, 0, 0, 0, 0, 0)


def sessions(*states: State) -> list[Session]:
    return [
        structs.replace(A_SESSION, id=f"ses_{n}", state=state, public_key=n.to_bytes(32, "little"))
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
def test_live_and_pending_sessions_count_toward_the_limit(states: tuple[State, ...], admitted: bool) -> None:
    """Live and pending sessions count toward the limit, ending ones do not."""
    decision = admission.decide(ADA, TIER, sessions(*states), None, UNLIMITED, NOW)
    assert isinstance(decision, admission.Admit) is admitted
    assert admitted or isinstance(decision.error, LiveSessionLimitReached)  # type: ignore[union-attr]  # refused


def test_a_limit_of_0_is_none() -> None:
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
def test_another_accounts_key_is_refused_before_any_limit(states: tuple[State, ...]) -> None:
    """Another account's key is at fault before any limit is."""
    holder = structs.replace(A_SESSION, account_id="acc_2")
    decision = admission.decide(ADA, TIER, sessions(*states), holder, UNLIMITED, NOW)
    assert isinstance(decision, admission.Refuse)
    assert isinstance(decision.error, InvalidRequest)
    assert "client_public_key" in str(decision.error)


@pytest.mark.parametrize(("max_session", "seconds"), [(1, 1), (30 * 86_400, 30 * 86_400), (31 * 86_400, 30 * 86_400)])
def test_a_session_lives_for_max_session_and_30_days_at_most(max_session: int, seconds: int) -> None:
    """The tier's max_session from now, and never beyond 30 days."""
    decision = admission.decide(ADA, replace(TIER, max_session=max_session), [], None, UNLIMITED, NOW)
    assert decision == admission.Admit(NOW + seconds * 1000, None)


@pytest.mark.parametrize(
    ("states", "used", "refusal"),
    [
        ((), 999, None),
        ((), 1000, QuotaExceeded),
        ((State.LIVE, State.LIVE), 1000, LiveSessionLimitReached),
    ],
    ids=["a byte is left", "none is left", "at both limits"],
)
def test_a_used_up_window_refuses_a_session(
    states: tuple[State, ...], used: int, refusal: type[Exception] | None
) -> None:
    """An account that has used up a window may open none; at the live limit too, that is what it is told."""
    quota = structs.replace(UNLIMITED, bytes_used=used, bytes_limit=1000)
    decision = admission.decide(ADA, TIER, sessions(*states), None, quota, NOW)
    assert (type(decision.error) if isinstance(decision, admission.Refuse) else None) == refusal
