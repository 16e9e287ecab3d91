"""The words of the status line, of its JSON and of the receipt."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest

from appliance.client.humanize import short_size
from appliance.client.run_totals import RunTotals
from appliance.client.ui.screen import JsonLines, line
from appliance.client.ui.status_text import (
    ASCII,
    UNICODE,
    Glyphs,
    Part,
    Traffic,
    View,
    as_json,
    fit,
    parts,
    quota_left,
    rates,
    receipt,
    total_cost,
)
from tests.support.client.scripted_api import SESSION

MIB = 2**20
VIEW = View(
    id="ses_1",
    region="fsn",
    public_ip="203.0.113.1",
    elapsed_s=3725.9,
    traffic=Traffic(down=5 * MIB, up=MIB, down_rate=2048.7, up_rate=0.0, handshake_age_s=12.3),
    session=SESSION,
)
OLDER = {name: value for name, value in SESSION.items() if name != "seconds"}  # of an exit that does not tell them
NOTHING = RunTotals()
UNLIMITED = SESSION | {"quota_bytes_limit": 0, "quota_seconds_limit": 0}
PAID = {"cost_time_millicents": 20_500, "cost_bytes_millicents": 999, "cost_currency": "eur"}


def text(view: View) -> str:
    return "  ".join(part.text for part in parts(view, UNICODE))


def test_the_line_has_time_rates_handshake_and_window() -> None:
    """Elapsed and counted, both directions with their rates, the handshake's age, the window that is nearer to its
    end."""
    assert text(VIEW) == (
        "fsn  203.0.113.1  connected 1:02:05  counted 0:41:30  ↓ 5.0 MiB  (2.0 KiB/s)  ↑ 1.0 MiB  (0 B/s)  "
        "handshake 12s ago  ███░░░░░░░  1.0 KiB left"
    )


def test_letters_for_terminals_without_arrows() -> None:
    """The same in ASCII."""
    found = " ".join(part.text for part in parts(VIEW, ASCII))
    assert found.isascii()
    assert "down 5.0 MiB" in found
    assert "###-------" in found


def test_what_is_not_there() -> None:
    """No handshake yet, no limits, no price: no word of bars or cost."""
    found = text(replace(VIEW, traffic=replace(VIEW.traffic, handshake_age_s=None), session=UNLIMITED))
    assert found.endswith("no handshake yet")


def test_before_the_first_answer() -> None:
    """Nothing of the session is known yet, and the line is a line."""
    found = text(replace(VIEW, session={}))
    assert found.startswith("fsn  203.0.113.1  1:02:05  ↓")
    assert found.endswith("handshake 12s ago")


def test_an_exit_that_tells_no_seconds() -> None:
    """An older exit: the line and the receipt are as they were, without a counted time."""
    assert "  1:02:05  ↓" in text(replace(VIEW, session=OLDER))
    assert as_json(replace(VIEW, session=OLDER))["counted_seconds"] is None
    found = dict(receipt(61.0, OLDER, NOTHING.plus(OLDER)))
    assert (found["connected"], "counted" in found) == ("0:01:01", False)


@pytest.mark.parametrize(("first", "second"), [(OLDER, SESSION), (SESSION, OLDER)])
def test_a_time_that_is_known_of_some_sessions_is_not_shown(first: dict[str, int], second: dict[str, int]) -> None:
    """The exit was upgraded between two sessions of the run: half of the time would look like all of it."""
    assert NOTHING.plus(first).plus(second).seconds is None
    assert NOTHING.plus(first).plus(second).plus(SESSION).seconds is None


@pytest.mark.parametrize(
    ("seconds", "short"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (2490, "41m"), (3725, "1h 2m"), (7200, "2h"), (358_200, "4d 3h")],
)
def test_a_short_counted_time_has_no_seconds_behind_minutes(seconds: int, short: str) -> None:
    """Where the line is short, the time is the longest part that can be."""
    counted = parts(replace(VIEW, session=SESSION | {"seconds": seconds}), UNICODE)[3]
    assert counted.short == f"counted {short}"


def test_the_cost_is_rounded_down_to_hundredths() -> None:
    """On paid: both legs together, rounded down to hundredths as a bill is."""
    assert "0.21 EUR" in text(replace(VIEW, session=SESSION | PAID))
    assert total_cost(NOTHING.plus(SESSION)) is None
    assert total_cost(NOTHING.plus(SESSION | PAID | {"cost_bytes_millicents": 100_000_000})) == "1000.20 EUR"


def test_the_cost_is_of_all_sessions_of_the_run() -> None:
    """As the time and the bytes are; before the next session's first answer, too; of currencies, one each."""
    twice = NOTHING.plus(SESSION | PAID).plus(SESSION | PAID)
    assert (twice.seconds, total_cost(twice)) == (2 * 2490, "0.42 EUR")
    assert total_cost(twice.plus(SESSION)) == "0.42 EUR"
    assert total_cost(twice.plus(SESSION | PAID | {"cost_currency": "usd"})) == "0.42 EUR + 0.21 USD"
    opened_again = text(replace(VIEW, session={}, earlier=twice))
    assert "counted 1:23:00" in opened_again
    assert opened_again.endswith("0.42 EUR")


def test_the_api_is_away() -> None:
    """It says that the API has not answered, and why."""
    assert text(replace(VIEW, away="503: busy")).endswith("no word from the API (503: busy)")


@pytest.mark.parametrize(
    ("used", "share", "left"),
    [
        ((0, 0), 1.0, "4.0 KiB"),
        ((4096, 0), 0.0, "0 B"),
        ((9999, 0), 0.0, "0 B"),
        ((1024, 7000), 200 / 7200, "3m 20s"),
    ],
)
def test_the_smaller_share_counts(used: tuple[int, int], share: float, left: str) -> None:
    """Bytes or seconds, whichever is nearer to its end; never less than nothing."""
    found = quota_left(SESSION | {"quota_bytes_used": used[0], "quota_seconds_used": used[1]})
    assert found is not None
    assert (found.share, found.amount) == (share, left)


def test_a_narrow_line_keeps_time_and_figures() -> None:
    """The line gives up its heaviest parts, never the elapsed time and the figures."""
    found = parts(VIEW, UNICODE)
    for width in range(20, 200):
        kept = fit(found, width)
        always = [part.text.removeprefix("connected ")[:7].rstrip("M ") for part in kept if part.weight == 0]
        assert always == ["1:02:05", "↓ 5.0", "↑ 1.0"]
        whole = sum(len(part.text) + 2 for part in kept) - 2
        assert whole <= width or not any(part.weight for part in kept)
    assert fit(found, 200) == found
    assert fit([Part("x" * 30)], 10) == [Part("x" * 30)]


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
@pytest.mark.parametrize(
    ("elapsed_s", "figures", "cost"),
    [
        (3725.9, {}, 0),
        (3725.9, {"down": 987 * MIB, "up": 99 * MIB, "down_rate": 12.3 * MIB, "up_rate": 999_000.0}, 999_000),
        (99.5 * 3600, {"down": 1000 * MIB, "down_rate": 55.5 * MIB, "handshake_age_s": 119.0}, 9_999_000),
    ],
)
def test_eighty_columns_hold_what_matters(
    glyphs: Glyphs, elapsed_s: float, figures: dict[str, float], cost: int
) -> None:
    """What people look for is there, beside the ^C: how long, how much and how fast both ways, the handshake, a bar of
    what is left, the cost."""
    session = SESSION | PAID | {"cost_bytes_millicents": cost}
    view = replace(VIEW, elapsed_s=elapsed_s, traffic=replace(VIEW.traffic, **figures), session=session)
    texts = [part.text for part in fit(parts(view, glyphs), 80 - len("^C"))]
    assert sum(map(len, texts)) + 2 * (len(texts) - 1) <= 78
    wanted = (r"\d+:\d\d:\d\d", rf"{glyphs.down} \S+", r"\S+/s", rf"{glyphs.up} \S+", r"\S+/s", r"handshake \S+")
    bar = f"[{glyphs.full}{glyphs.empty}]{{5}}"
    shown = "  ".join(texts)
    assert re.search("  ".join((*wanted, bar, r"(\S+ \S+ left  )?\d+\.\d\d EUR$")), shown), shown


def test_eighty_columns_on_free() -> None:
    """Without a cost there is room for how much is left, and for the region."""
    shown = "  ".join(part.text for part in fit(parts(VIEW, UNICODE), 78))
    assert shown == "fsn  1:02:05  ↓ 5.0M  2.0K/s  ↑ 1.0M  0B/s  handshake 12s  █░░░░  1.0 KiB left"


@pytest.mark.parametrize(
    ("width", "session", "shown"),
    [
        (78, UNLIMITED | PAID, "1:02:05  counted 41m  ↓ 5.0M  2.0K/s  ↑ 1.0M  0B/s  handshake 12s  0.21 EUR"),
        (78, SESSION | PAID, "1:02:05  ↓ 5.0M  2.0K/s  ↑ 1.0M  0B/s  handshake 12s  █░░░░  0.21 EUR"),
        (98, SESSION, "fsn  1:02:05  counted 41m  ↓ 5.0M  2.0K/s  ↑ 1.0M  0B/s  handshake 12s  █░░░░  1.0 KiB left"),
        (40, UNLIMITED | PAID, "1:02:05  ↓ 5.0M  ↑ 1.0M  0.21 EUR"),
    ],
)
def test_where_the_counted_time_has_room(width: int, session: dict[str, int], shown: str) -> None:
    """On 80 columns beside a cost, where no limit is shown; else from 100 columns on."""
    assert "  ".join(part.text for part in fit(parts(replace(VIEW, session=session), UNICODE), width)) == shown


def test_sizes_have_five_columns_at_most() -> None:
    """Five columns at most, and never 1024 of anything."""
    sizes = {
        0: "0B",
        1023: "1023B",
        1024: "1.0K",
        10_188: "9.9K",
        10_189: "10K",
        2**20 - 1: "1.0M",
        9 * 2**40: "9.0T",
    }
    assert {count: short_size(count) for count in sizes} == sizes


def test_rates_are_between_two_readings_and_never_negative() -> None:
    """Bytes a second between two readings; none before the second, and none below zero after a tunnel made anew."""
    assert rates(None, (10.0, 500, 500)) == (0, 0)
    assert rates((10.0, 500, 500), (10.0, 700, 700)) == (0, 0)
    assert rates((10.0, 500, 500), (12.0, 700, 500)) == (100, 0)
    assert rates((10.0, 500, 500), (12.0, 0, 600)) == (0, 50)


def test_json_has_the_apis_names() -> None:
    """Numbers, under the names that the API has for them; what is not known is null."""
    found = as_json(VIEW)
    assert found["event"] == "status"
    assert (found["elapsed_seconds"], found["counted_seconds"]) == (3725, 2490)
    assert (found["down_bytes"], found["down_bytes_per_second"]) == (5 * MIB, 2048)
    assert (found["handshake_age_seconds"], found["id"]) == (12, "ses_1")
    assert (found["quota_bytes_limit"], found["cost_time_millicents"], found["api_away"]) == (4096, None, None)


def test_a_receipt_has_time_figures_and_cost() -> None:
    """How long and how much, and what it cost; the directions are the client's."""
    session = SESSION | PAID | {"terminated_reason": "closed"}
    found = receipt(2550.0, session, NOTHING.plus(session))
    assert dict(found) == {
        "session": "ses_1",
        "ended": "closed",
        "connected": "0:42:30",
        "counted": "0:41:30",
        "downloaded": "2.0 KiB",
        "uploaded": "1.0 KiB",
        "quota left": "1.0 KiB",
        "cost": "0.21 EUR",
    }


def test_a_receipt_of_several_sessions_adds_them_up() -> None:
    """It names the last one, and all figures are of all of them; with the cost, as their lines on the invoice."""
    last = SESSION | PAID | {"id": "ses_3", "terminated_reason": "closed"}
    found = dict(receipt(99_999.0, last, NOTHING.plus(SESSION | PAID).plus(SESSION | PAID).plus(last)))
    assert (found["session"], found["counted"], found["cost"]) == ("ses_3, the last of 3", "2:04:30", "0.64 EUR")
    assert (found["downloaded"], found["uploaded"]) == ("6.0 KiB", "3.0 KiB")


def test_the_receipt_as_json_has_both_times() -> None:
    """Beside the exit's answer for the last session: how long it was connected, and what counted of all sessions."""
    out = io.StringIO()
    JsonLines(out).receipt(2550.9, SESSION, NOTHING.plus(SESSION).plus(SESSION))
    found = json.loads(out.getvalue())
    assert (found["elapsed_seconds"], found["counted_seconds"], found["seconds"]) == (2550, 2 * 2490, 2490)


@pytest.mark.parametrize(("encoding", "ending"), [("utf-8", "…"), ("ascii", "")])
def test_no_room_for_what_stays(encoding: str, ending: str) -> None:
    """A terminal that is narrower than what always stays has its beginning, in characters that it has."""
    shown = line(VIEW, ASCII, 20, encoding)
    assert shown.plain == "1:02:05  down 5.0M  "[: 20 - len(ending)] + ending
