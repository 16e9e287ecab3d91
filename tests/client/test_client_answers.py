"""What the client does on which answer."""

from __future__ import annotations

import pytest

from appliance.client.api import responses
from appliance.client.api.http import Answer
from appliance.client.api.responses import Again, Live, OpenedSession, Over, Refusal, on_opening, on_status, pause
from appliance.domain.errors import HostError
from tests.support.client.scripted_api import OPENED, QUOTA_EXCEEDED, SESSION


def test_a_201_is_a_session() -> None:
    """201 is a session, whatever fields a later version may add."""
    found = on_opening(Answer(201, {**OPENED, "later": 1}), 1)
    assert found == OpenedSession(**OPENED)


def test_an_answer_that_is_not_the_apis() -> None:
    """A 201 or a 402 without what they have to have is no session, and says whose fault that is."""
    for answer in (Answer(201, {"id": "x"}), Answer(402, {"error": "quota exceeded"})):
        with pytest.raises(HostError, match="is it this appliance that answers"):
            on_opening(answer, 1)


def test_a_used_up_quota_is_status_3() -> None:
    """Status 3; both windows with what was used and when they reset, and what to do."""
    found = on_opening(Answer(402, QUOTA_EXCEEDED), 1)
    assert found == Refusal(
        "quota exceeded (tier free): 4.0 GiB of 4.0 GiB (resets 2026-12-02T00:00:00Z), session time 1m 30s, unmetered "
        "(resets 2026-12-01T00:00:00Z); try again after 2026-12-02T00:00:00Z, or ask the operator for a higher tier",
        responses.QUOTA_EXCEEDED,
    )


@pytest.mark.parametrize(
    ("available", "said"),
    [(["ams", "nbg"], "; there is one in: ams, nbg"), ([], "; and there is none in any other")],
)
def test_an_unknown_region_names_the_others(available: list[str], said: str) -> None:
    """A region without an exit is not waited for; those that have one are named."""
    body = {"error": "no active node in region fsn", "available": available}
    assert on_opening(Answer(503, body, 10), 1) == Refusal(f"no active node in region fsn{said}", responses.FAILED)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413])
def test_a_lasting_refusal_is_status_1(status: int) -> None:
    """What will not change by asking again is status 1, in the API's own words."""
    found = on_opening(Answer(status, {"error": "its words"}), 1)
    assert isinstance(found, Refusal)
    assert found.exit_status == responses.FAILED
    assert found.why.startswith(f"the API answers {status}: its words")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("decide", [on_opening, on_status])
def test_a_passing_refusal_is_tried_again(status: int, decide: object) -> None:
    """Busy, limited or failing: again, after as long as it asks for, but never sooner than the pause, nor in hours."""
    assert callable(decide)
    for retry_after, failures, wait in ((30, 1, 30), (None, 1, 1), (1, 4, 8), (None, 50, 10), (9999, 1, 300)):
        found = decide(Answer(status, {"error": "busy"}, retry_after), failures)
        assert isinstance(found, Again)
        assert (found.after_s, "busy" in found.why) == (wait, True)


def test_pauses_double_up_to_ten_seconds() -> None:
    """Twice as long each time, ten seconds at most."""
    assert [pause(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 10, 10, 10]


def test_a_session_with_a_reason_is_over() -> None:
    """A session without a reason is live; one with a reason is over."""
    assert on_status(Answer(200, SESSION), 1) == Live(SESSION)
    final = {**SESSION, "terminated_reason": "drained"}
    assert on_status(Answer(200, final), 1) == Over("drained", final)


@pytest.mark.parametrize(("status", "words"), [(401, "invalid token"), (404, "session not found")])
def test_an_unknown_token_or_session_is_an_end(status: int, words: str) -> None:
    """A token that does not count any more, or a session that the exit does not know, is an end too."""
    assert on_status(Answer(status, {"error": words}), 1) == Over(words, {})


@pytest.mark.parametrize(("status", "body"), [(401, {}), (404, {}), (200, {}), (200, {"id": "ses_1"}), (302, {})])
def test_status_of_who_stands_before_it(status: int, body: dict[str, str]) -> None:
    """A proxy without its backend, or a portal, answers for itself: the tunnel is left alone, the API asked again."""
    assert isinstance(on_status(Answer(status, body), 1), Again)


@pytest.mark.parametrize(
    ("reason", "reopen"),
    [
        ("idle", True),
        *((reason, False) for reason in ("quota_exceeded", "expired", "closed", "replaced", "admin", "drained")),
    ],
)
def test_only_idle_is_opened_again(reason: str, reopen: bool) -> None:
    """Who slept comes back; who was sent away stays away."""
    assert Over(reason, {}).reopen is reopen
