"""Chooses which exits of a region are asked for a new session, and in which order. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.errors import NoActiveNodeInRegion, NoActiveNodes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from appliance.fleet.presence.beats import Beat
    from appliance.fleet.presence.directory import Presence

TRIES = 2
HOME = 1.25  # times the least load: up to there a session stays on the host that was asked


def regions(presences: Sequence[Presence]) -> list[tuple[str, int]]:
    """Returns (code, number of exits that take sessions) of every region that has one, by code."""
    codes = [each.member.region for each in presences if each.fault is None]
    return [(code, codes.count(code)) for code in sorted(set(codes))]


def candidates(region: str, presences: Sequence[Presence], own_id: str, below: Callable[[int], int]) -> list[str]:
    """Returns the ids of the exits to ask, the first one first. `below`: returns a random number from 0 to below n.

    Raises NoActiveNodes or NoActiveNodeInRegion.
    """
    active = regions(presences)
    if not active:
        raise NoActiveNodes
    there = [each.beat for each in presences if each.fault is None and each.member.region == region and each.beat]
    if not there:
        raise NoActiveNodeInRegion(region, tuple(code for code, _ in active))
    return order(there, own_id, below)


def order(there: Sequence[Beat], own_id: str, below: Callable[[int], int]) -> list[str]:
    """Returns the ids of at most TRIES exits of those that take sessions.

    Two are picked at random and compared, because all hosts know of the same least loaded one, a second late.
    """
    left, chosen = list(there), list[str]()
    least = min(beat.load for beat in left)
    own = next((beat for beat in left if beat.node == own_id and beat.load <= HOME * least), None)
    while left and len(chosen) < TRIES:
        beat = own if own is not None and not chosen else _better(left, below)
        left.remove(beat)
        chosen.append(beat.node)
    return chosen


def _better(left: Sequence[Beat], below: Callable[[int], int]) -> Beat:
    one = below(len(left))
    if len(left) == 1:
        return left[one]
    other = (one + 1 + below(len(left) - 1)) % len(left)
    return min(left[one], left[other], key=lambda beat: beat.load)
