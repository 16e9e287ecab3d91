"""What looks again and again wakes the process together with what looks as often."""

from __future__ import annotations

from appliance.sessions.stopping import end_of


def test_looks_as_frequent_as_each_other_are_made_together() -> None:
    """A wait lasts as long as was asked at most, and at least half as long; once together, waits last just as long."""
    for seconds in (0.25, 0.5, 1.0, 2.0, 5.0):
        for begun in (0.0, 100.001, 100.124, 100.126, 100.249, 100.251, 100.499, 100.6, 99999.99):
            assert seconds / 2 <= end_of(seconds, begun) - begun <= seconds
        assert end_of(seconds, 100.0) == end_of(seconds, 100.003) == 100.0 + seconds
    assert end_of(0.05, 100.003) == 100.053
