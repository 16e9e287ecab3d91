"""Finds the row that an id names, which may be shortened to what is unique."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from appliance.domain.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import aiosqlite

T = TypeVar("T")

MOST = 5  # that are named where a short id fits several


async def found(
    db: aiosqlite.Connection,
    given: str,
    what: str,
    by_id: Callable[[aiosqlite.Connection, str], Awaitable[T | None]],
    ids_like: Callable[[aiosqlite.Connection, str, int], Awaitable[list[str]]],
) -> T | None:
    """Returns the row of this id, or of the only one that begins like it, with or without its prefix; None: no row.

    Raises Conflict if it fits several.
    """
    whole = await by_id(db, given)
    if whole is not None:
        return whole
    alike = await ids_like(db, given, MOST)
    if len(alike) > 1:
        listed = ", ".join([*alike, *([] if len(alike) < MOST else ["another"])])
        raise Conflict(f"{what} {given} may be {listed}; give more of the id")
    return await by_id(db, alike[0]) if alike else None
