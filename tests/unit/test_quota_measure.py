"""An account's use of its windows, against its tier's limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.load import parse_settings
from appliance.domain.entities import Account
from appliance.domain.quota import Quota, measure
from appliance.domain.tiers import Tier
from appliance.domain.windows import MOST, UNUSED, Use, Window, Windows

OPENED = 1_000_000
TIER = replace(
    parse_settings("", {}, "host").tiers["free"],
    bytes_limit=1000,
    bytes_window=200,
    seconds_limit=60,
    seconds_window=100,
)
BYTES_END, SECONDS_END = OPENED + 200_000, OPENED + 100_000
USED = Windows(Window(OPENED, 400), Window(OPENED, 30_000))


def account(windows: Windows) -> Account:
    return Account("acc_1", "ada", Tier.FREE, False, 0, windows)


def quota(used: int = 0, of: int = 0, ms: int = 0, limit: int = 0, resets: tuple[int, int] = (0, 0)) -> Quota:
    return Quota(
        bytes_used=used,
        bytes_limit=of,
        bytes_resets_at=resets[0],
        time_used_ms=ms,
        seconds_limit=limit,
        seconds_resets_at=resets[1],
    )


LIMITS = [
    ("nothing used", quota(0, 1000, 0, 60), False, False),
    ("one byte below", quota(999, 1000, 0, 60), False, False),
    ("at the bytes", quota(1000, 1000, 0, 60), True, False),
    ("one byte above", quota(1001, 1000, 0, 60), True, False),
    ("a millisecond below", quota(0, 1000, 59_999, 60), False, False),
    ("at the seconds", quota(0, 1000, 60_000, 60), False, True),
    ("a millisecond above", quota(0, 1000, 60_001, 60), False, True),
    ("both at once", quota(1000, 1000, 60_000, 60), True, True),
    ("no limit, no use", quota(0, 0, 0, 0), False, False),
    ("no limit", quota(MOST, 0, MOST, 0), False, False),
    ("no limit to bytes", quota(MOST, 0, 59_999, 60), False, False),
    ("no limit to time", quota(999, 1000, MOST, 0), False, False),
    ("the smallest limits", quota(1, 1, 1000, 1), True, True),
    ("below the smallest limits", quota(0, 1, 999, 1), False, False),
    ("the largest limit", quota(MOST, MOST, 0, 0), True, False),
]


@pytest.mark.parametrize(("found", "of_bytes", "of_time"), [each[1:] for each in LIMITS], ids=[e[0] for e in LIMITS])
def test_a_window_is_used_up_when_its_limit_is_reached(found: Quota, of_bytes: bool, of_time: bool) -> None:
    """A window is used up when its limit is reached; a limit of 0 is none."""
    assert (found.bytes_exceeded, found.time_exceeded, found.exceeded) == (of_bytes, of_time, of_bytes or of_time)


RESETS = [
    ("bytes, which reset later", (1000, 0), (9, 5), 9),
    ("bytes, which reset earlier", (1000, 0), (5, 9), 5),
    ("seconds, which reset later", (0, 60_000), (5, 9), 9),
    ("seconds, which reset earlier", (0, 60_000), (9, 5), 5),
    ("both, bytes reset later", (1000, 60_000), (9, 5), 9),
    ("both, seconds reset later", (1000, 60_000), (5, 9), 9),
]


@pytest.mark.parametrize(("used", "resets", "expected"), [each[1:] for each in RESETS], ids=[e[0] for e in RESETS])
def test_the_reset_is_that_of_the_used_up_window(used: tuple[int, int], resets: tuple[int, int], expected: int) -> None:
    """Of the window that is used up; the later one if both are."""
    assert quota(used[0], 1000, used[1], 60, resets).resets_at == expected


@pytest.mark.parametrize(("ms", "seconds"), [(0, 0), (999, 0), (1000, 1), (59_999, 59), (60_000, 60)])
def test_only_whole_seconds_count(ms: int, seconds: int) -> None:
    """Whole seconds, those that are over."""
    assert quota(ms=ms).seconds_used == seconds


LEFT = [
    ("one", 30_000, 60, 1, 30_000),
    ("two", 30_000, 60, 2, 15_000),
    ("three", 30_000, 60, 3, 10_000),
    ("one, odd", 29_999, 60, 1, 30_001),
    ("two, odd", 29_999, 60, 2, 15_001),
    ("three, odd", 29_999, 60, 3, 10_001),
    ("the last ms", 59_999, 60, 3, 1),
    ("none left", 60_000, 60, 1, 0),
    ("overdrawn", 61_000, 60, 3, 0),
    ("no limit", 61_000, 0, 1, None),
    ("nobody runs", 0, 60, 0, None),
]


@pytest.mark.parametrize(
    ("used", "limit", "sessions", "expected"), [each[1:] for each in LEFT], ids=[each[0] for each in LEFT]
)
def test_sessions_that_run_together_share_what_is_left(
    used: int, limit: int, sessions: int, expected: int | None
) -> None:
    """Sessions that run together share what is left."""
    assert quota(ms=used, limit=limit).ms_left(sessions) == expected


@given(st.integers(1, 10**6), st.integers(0, 10**10), st.integers(1, 50))
def test_ms_left_is_when_it_runs_out(limit: int, used: int, sessions: int) -> None:
    """That many ms later the window is used up, and a ms earlier it was not."""
    left = quota(ms=used, limit=limit).ms_left(sessions)
    assert left is not None
    assert quota(ms=used + left * sessions, limit=limit).time_exceeded
    assert left == 0 or not quota(ms=used + (left - 1) * sessions, limit=limit).time_exceeded


NOW = OPENED + 50_000
SECOND_AGO = Use(total_bytes=0, time_ms=1000, start_ms=NOW - 1000, end_ms=NOW)
MEASURED = [
    ("nothing ever", UNUSED, [], NOW, (0, NOW + 200_000, 0, NOW + 100_000)),
    ("nothing runs", USED, [], NOW, (400, BYTES_END, 30_000, SECONDS_END)),
    ("one runs", USED, [SECOND_AGO], NOW, (400, BYTES_END, 31_000, SECONDS_END)),
    ("three run", USED, [SECOND_AGO] * 3, NOW, (400, BYTES_END, 33_000, SECONDS_END)),
    ("the first runs", UNUSED, [SECOND_AGO], NOW, (0, NOW + 200_000, 1000, NOW + 99_000)),
    ("1 ms before time resets", USED, [], SECONDS_END - 1, (400, BYTES_END, 30_000, SECONDS_END)),
    ("time resets", USED, [], SECONDS_END, (400, BYTES_END, 0, SECONDS_END + 100_000)),
    ("1 ms before bytes reset", USED, [], BYTES_END - 1, (400, BYTES_END, 0, BYTES_END + 99_999)),
    ("both reset", USED, [], BYTES_END, (0, BYTES_END + 200_000, 0, BYTES_END + 100_000)),
    (
        "two run across the reset of time",
        USED,
        [Use(0, 12_000, SECONDS_END - 4000, SECONDS_END + 8000)] * 2,
        SECONDS_END + 8000,
        (400, BYTES_END, 16_000, SECONDS_END + 100_000),
    ),
    (
        "bytes move across the reset of time",
        USED,
        [Use(12, 12_000, SECONDS_END - 4000, SECONDS_END + 8000)],
        SECONDS_END + 8000,
        (412, BYTES_END, 8000, SECONDS_END + 100_000),
    ),
]


@pytest.mark.parametrize(
    ("windows", "running", "now", "expected"), [each[1:] for each in MEASURED], ids=[each[0] for each in MEASURED]
)
def test_each_window_is_measured_by_itself(
    windows: Windows, running: list[Use], now: int, expected: tuple[int, ...]
) -> None:
    """What is counted and what runs, in each window by itself; the limits are those of the tier."""
    found = measure(account(windows), TIER, running, now)
    assert (found.bytes_used, found.bytes_resets_at, found.time_used_ms, found.seconds_resets_at) == expected
    assert (found.bytes_limit, found.seconds_limit) == (1000, 60)


def test_spend_keeps_the_windows_apart() -> None:
    """Bytes without time open the bytes' window alone, and time without bytes the time's."""
    assert UNUSED.spend(TIER, [Use(5, 0, OPENED, OPENED)]) == Windows(traffic=Window(OPENED, 5))
    assert UNUSED.spend(TIER, [Use(0, 5, OPENED, OPENED + 5)]) == Windows(time=Window(OPENED, 5))
