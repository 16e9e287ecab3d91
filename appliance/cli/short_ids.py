"""Finds the id that a shortened one is meant to be. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 5  # that are named where a short id fits several


def meant(given: str, found: Sequence[str], what: str) -> str | None:
    """Returns the id that `given` begins; None: there is none. `found`: up to MOST that begin like it.

    Raises Conflict if it fits several.
    """
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join([*found, *([] if len(found) < MOST else ["another"])])
        raise Conflict(f"{what} {given} may be {listed}; give more of the id")
    return None
