"""Puts an account's invoice together from the lines of all exits of a fleet, and tells whether it is complete. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from appliance.domain import ids
from appliance.domain.charges import month_bounds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from appliance.domain.invoice import Line


class ExitLine(NamedTuple):
    """Holds a line with the id of the exit that bills it."""

    node: str
    line: Line


@dataclass(frozen=True, slots=True)
class ReportingExit:
    """Tells what an exit has reported. `upto`: all before this instant (its wall clock, ms); 0: it has not said.

    `present`: it is in the fleet. Of one that left or was forgotten nothing more comes.
    """

    node: str
    name: str
    region: str
    upto: int
    present: bool = True


def combined(own_node: str, own: Iterable[Line], told: Iterable[ExitLine], adopted: AbstractSet[str]) -> list[ExitLine]:
    """Returns one line a session, in the order of an invoice.

    `own`: this host's, up to now. `adopted`: those of its sessions whose figures its store lacks in part, as it was
    restored; of them, and of those that it has lost, what was told holds.
    """
    of_session: dict[str, ExitLine] = {}
    for each in told:
        known = of_session.get(each.line.session_id)
        if known is None or _standing(each) > _standing(known):
            of_session[each.line.session_id] = each
    for line in own:
        if line.session_id not in of_session or line.session_id not in adopted:
            of_session[line.session_id] = ExitLine(own_node, line)
    return sorted(of_session.values(), key=lambda each: (each.line.started_at, each.line.session_id))


def _standing(each: ExitLine) -> tuple[bool, int, int, str]:
    """Orders what two exits tell of one session: its maker's holds; else the larger one, as for a host that has left
    and joined again under another id."""
    is_maker = ids.mark_of(each.line.session_id) == ids.mark_of_node(each.node)
    return is_maker, each.line.charge.total_bytes, each.line.charge.seconds, each.node


def within_month(line: Line, now_ms: int) -> Line:
    """Returns the line with its beginning and end in its month, also of a session that went on."""
    month_begins, month_ends = month_bounds(line.month)
    ended = now_ms if line.ended_at is None else line.ended_at
    line = replace(line, started_at=max(line.started_at, month_begins))
    return replace(line, ended_at=month_ends) if ended >= month_ends else line


def unreported(exits: Iterable[ReportingExit], month: str) -> Sequence[ReportingExit]:
    """Returns the exits that may still report use of the month."""
    _, month_ends = month_bounds(month)
    return [each for each in exits if each.present and each.upto < month_ends]
