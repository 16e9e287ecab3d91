"""What is live, in memory."""

from __future__ import annotations

from dataclasses import replace

from appliance.clock import Moment
from appliance.entities import Baseline, State
from appliance.live import LiveSessions
from tests.unit.a_session import A_SESSION

KEY = A_SESSION.public_key
BASELINE = Baseline("boot", 4, 1, 2)


def live() -> LiveSessions:
    found = LiveSessions()
    found.load([A_SESSION], {KEY: BASELINE})
    return found


def test_load() -> None:
    """Live and closing sessions have peers; pending and ended ones, and baselines of no session, are left out."""
    others = [
        replace(A_SESSION, id=state, state=state, public_key=bytes([n]) * 32) for n, state in enumerate(State, start=2)
    ]
    found = LiveSessions()
    found.load(others, {s.public_key: BASELINE for s in others} | {KEY: BASELINE})
    assert {s.state for s in found.by_key.values()} == {State.LIVE, State.CLOSING}
    assert found.baselines.keys() == found.by_key.keys()
    assert [s.state for s in found.closing()] == [State.CLOSING]
    assert len(found) == 2


def test_drop() -> None:
    """An ended session goes with its baseline; dropping it again does nothing."""
    found = live()
    for _ in range(2):
        found.drop(A_SESSION)
        assert not found.by_key
        assert not found.baselines


def test_successor_stays() -> None:
    """A session that took over the key stays when the one before it is dropped."""
    found, successor = live(), replace(A_SESSION, id="ses_2")
    found.put(successor)
    found.drop(A_SESSION)
    assert found.by_key == {KEY: successor}
    assert found.baselines == {KEY: BASELINE}


def test_reinstall() -> None:
    """A peer added afresh counts from zero and is quiet from now."""
    found = live()
    found.reinstall([KEY], Moment(0, 9_000, "next"))
    assert found.baselines == {}
    assert found.by_key == {KEY: replace(A_SESSION, quiet_since_ms=9_000, quiet_boot_id="next")}


def test_next_expiry() -> None:
    """The earliest end of all; none while nobody is live."""
    found = live()
    found.put(replace(A_SESSION, id="ses_2", public_key=b"\x02" * 32, expires_at=5))
    assert found.next_expiry() == 5
    assert LiveSessions().next_expiry() is None
