"""A real server on a host whose wall clock is set to another time."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.tunnel.waiting import until
from tests.support.tunnel.wall_clock import WallClock, wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.tunnel.appliance_process import Appliance

DAY = 86_400
YEAR = 365 * DAY
NEVER_IDLE = {"idle_timeout": 0}
ACCEPT = ("node", "resume", "--accept-clock")


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[WallClock]:
    with wall_clock(tmp_path) as made:
        yield made


@pytest.fixture
def appliance(start_appliance: Callable[..., Appliance], clock: WallClock) -> Appliance:
    return start_appliance(environment=clock.environment, **{"tiers.free": NEVER_IDLE})


class Sessions:
    """One that is live, and one that has ended: its history."""

    def __init__(self, appliance: Appliance) -> None:
        self._appliance = appliance
        self.token = appliance.token()
        self.ended = appliance.open(self.token)["id"]
        assert appliance.api("DELETE", f"/v1/sessions/{self.ended}", token=self.token).status == 200
        self.live = appliance.open(self.token)["id"]

    def reason(self, session_id: str) -> str | None:
        """Why it ended; None: it is live. `gone`: nothing is known of it any more."""
        answer = self._appliance.api("GET", f"/v1/sessions/{session_id}", token=self.token)
        if answer.status == 404:
            return "gone"
        found: dict[str, Any] = answer.body
        return found.get("terminated_reason")

    def require_as_they_were(self, seconds: float = 2) -> None:
        """For some ticks."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert (self.reason(self.live), self.reason(self.ended)) == (None, "closed"), self._appliance.log()
            time.sleep(0.5)
        assert self._appliance.api("GET", "/readyz").status == 200


@pytest.mark.black_box
def test_a_clock_that_steps_ends_no_session_and_deletes_no_history(appliance: Appliance, clock: WallClock) -> None:
    """A year ahead while it runs, killed and started again; set days back while it is away. What is new has the time
    by the boot clock."""
    sessions = Sessions(appliance)
    clock.step(YEAR)
    sessions.require_as_they_were()
    appliance.kill()
    appliance.start()
    sessions.require_as_they_were()
    appliance.kill()
    clock.step(-YEAR - 3 * DAY)
    appliance.start()
    sessions.require_as_they_were()
    opened = appliance.open(sessions.token)["id"]
    clock.put_back()
    created = appliance.session(opened, sessions.token)["created_at"]
    assert datetime.fromisoformat(created).timestamp() == pytest.approx(time.time(), abs=300)
    sessions.require_as_they_were()


def test_a_step_is_shown_and_accepted(appliance: Appliance, clock: WallClock, show: Callable[[str], None]) -> None:
    """`node status`, `doctor`, the log and a metric say that the clock is doubted, and what to do; once it is accepted,
    sessions end that have expired. There is nothing to accept before and after."""
    sessions = Sessions(appliance)
    assert "nothing to accept" in appliance.attempt(*ACCEPT, check=True).stderr
    clock.step(YEAR)
    until(lambda: "the wall clock is 365 d ahead" in appliance.log(), "the log says so")
    status = json.loads(appliance.admin("node", "status", "--json"))
    assert status["clock_doubted"]
    assert "node resume --accept-clock" in status["clock_remedy"]
    assert status["goes_on_with"] < status["wall_clock"]
    metrics = appliance.space.run("curl", "-q", "-sS", "--noproxy", "*", "http://127.0.0.1:9586/metrics").stdout
    (ahead_s,) = re.findall(r"^wg_appliance_clock_doubted_seconds (\S+)$", metrics, re.MULTILINE)
    assert float(ahead_s) == pytest.approx(YEAR, abs=60)
    checks = json.loads(appliance.attempt("doctor", "--json").stdout)["checks"]
    (found,) = [check for check in checks if check["check"] == "clock"]
    assert "365 d ahead" in found["what"]
    assert "node resume --accept-clock" in found["mend"]
    assert sessions.reason(sessions.live) is None

    began = time.monotonic()
    assert "365 d ahead of what was believed" in appliance.attempt(*ACCEPT, check=True).stderr
    until(lambda: sessions.reason(sessions.live) == "expired", "the session has expired")
    show(f"accepted and taken over in {time.monotonic() - began:.1f} s")
    assert not json.loads(appliance.admin("node", "status", "--json"))["clock_doubted"]
    assert "nothing to accept" in appliance.attempt(*ACCEPT, check=True).stderr


def test_a_step_is_accepted_while_the_server_is_stopped(appliance: Appliance, clock: WallClock) -> None:
    """From its start on, the accepted time is the one it goes by; a later step is another one."""
    sessions = Sessions(appliance)
    appliance.kill()
    clock.step(YEAR)
    said = appliance.attempt(*ACCEPT, check=True).stderr
    assert "the server is not running" in said
    assert "365 d ahead of what was believed" in said
    appliance.start()
    until(lambda: sessions.reason(sessions.live) == "expired", "the session has expired")
    until(lambda: sessions.reason(sessions.ended) == "gone", "history of a year ago is swept")
    opened = appliance.open(sessions.token)["id"]
    appliance.kill()
    clock.step(YEAR)
    appliance.start()
    assert sessions.reason(opened) is None
    assert json.loads(appliance.admin("node", "status", "--json"))["clock_doubted"]


def test_a_synchronised_clock_is_followed(appliance: Appliance, clock: WallClock) -> None:
    """Once a time service has said that the clock is right, sessions end that have expired by it."""
    sessions = Sessions(appliance)
    clock.step(YEAR)
    sessions.require_as_they_were(seconds=2)
    clock.synchronise()
    until(lambda: sessions.reason(sessions.live) == "expired", "the session has expired")
    assert not json.loads(appliance.admin("node", "status", "--json"))["clock_doubted"]
    assert "the wall clock is" not in appliance.log()  # the doubt lasted for a moment
