"""One line a session, whoever tells of it; use of windows that are open, the larger of what is told twice."""

from __future__ import annotations

from dataclasses import replace

from appliance.config.load import parse_settings
from appliance.domain import ids
from appliance.domain.charges import Charge, month_bounds
from appliance.domain.fleet_invoice import ExitLine, ReportingExit, combined, unreported, within_month
from appliance.domain.fleet_use import ExitWindows, WindowsUse, current, summed
from appliance.domain.invoice import Line
from appliance.domain.windows import Window, Windows

AMS, FRA, OSL = (f"nod_{n:024x}" for n in (1, 2, 3))
STARTS, ENDS = month_bounds("2026-11")


def line(session_id: str, seconds: int, started_at: int = STARTS, ended_at: int | None = None) -> Line:
    return Line(session_id, "2026-11", started_at, ended_at, None, Charge(seconds, 0, 0, None, None))


def test_a_session_of_which_two_exits_tell_has_one_line() -> None:
    """That of the exit which made it; of one that is older than the fleet, the larger: its host has another id now."""
    made = f"ses_{ids.mark_of_node(AMS)}"
    told = [ExitLine(FRA, line(made, 99)), ExitLine(AMS, line(made, 5))]
    assert combined(OSL, [], told, set()) == combined(OSL, [], told[::-1], set()) == [told[1]]
    older = [ExitLine(FRA, line("ses_1", 5)), ExitLine(AMS, line("ses_1", 6))]
    assert combined(OSL, [], older, set()) == combined(OSL, [], older[::-1], set()) == [older[1]]


def test_own_lines_hold_but_of_sessions_that_were_taken_over() -> None:
    """Those that only one side has stay; the order is that in which they began."""
    own = [line("ses_1", 10, STARTS + 3), line("ses_2", 10, STARTS + 2), line("ses_3", 10, STARTS + 1)]
    told = [ExitLine(OSL, line("ses_1", 9, STARTS + 3)), ExitLine(OSL, line("ses_2", 99, STARTS + 2))]
    told.append(ExitLine(OSL, line("ses_4", 1)))
    found = [(each.line.session_id, each.line.charge.seconds) for each in combined(OSL, own, told, {"ses_2", "ses_3"})]
    assert found == [("ses_4", 1), ("ses_3", 10), ("ses_2", 99), ("ses_1", 10)]


def test_a_line_is_within_its_month() -> None:
    """Also where its exit does not know when it began in it, and of a session that went on."""
    assert within_month(line("ses_1", 1, STARTS - 5, ENDS + 5), ENDS) == line("ses_1", 1, STARTS, ENDS)
    assert within_month(line("ses_1", 1), ENDS - 1) == line("ses_1", 1)
    assert within_month(line("ses_1", 1), ENDS) == line("ses_1", 1, ended_at=ENDS)


def test_those_are_awaited_whose_mark_is_before_the_months_end() -> None:
    """Not those that have left."""
    told = ReportingExit(AMS, "ams1", "ams", ENDS)
    awaited = [ReportingExit(FRA, "fra1", "fra", ENDS - 1), ReportingExit(FRA, "fra1", "fra", 0)]
    left = ReportingExit(OSL, "osl1", "osl", 0, present=False)
    assert unreported([told, *awaited, left], "2026-11") == awaited


def test_use_is_of_open_windows_and_counts_once() -> None:
    """What an exit both answers and has reported is the larger of both, figure by figure."""
    tier = replace(parse_settings("", {}, "exit").tiers["free"], bytes_window=100, seconds_window=50)
    reported = [
        ExitWindows(AMS, Windows(Window(1000, 7), Window(1000, 8))),
        ExitWindows(FRA, Windows(Window(-60_000, 9), Window(60_000, 5))),
    ]
    used = current(reported, tier, 60_000)
    assert used == {AMS: WindowsUse(7, 0), FRA: WindowsUse(0, 5)}
    assert summed({AMS: WindowsUse(6, 3), OSL: WindowsUse(100, 200)}, used) == WindowsUse(7 + 100, 3 + 5 + 200)
