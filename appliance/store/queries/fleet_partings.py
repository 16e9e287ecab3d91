"""Keeps, on a hub, whose claims are to be freed, and for the command that has forgotten a host what was freed.

Beside what is to be asked of other exits, in the same table, under an id that no exit has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from appliance.store.queries import fleet_requests

if TYPE_CHECKING:
    import aiosqlite

LEFT, FORGOTTEN, ANSWERED = "left", "forgotten", fleet_requests.REFUSED
_HUB = "hub"
_MOST = 100


class LostDevice(msgspec.Struct, frozen=True):
    """Names a device that was on a host. `account`: the name of its account."""

    account: str
    device: str


class FreedClaims(msgspec.Struct, frozen=True):
    """Tells what was freed of a host that was forgotten. `keys`: how many clients' keys."""

    node_id: str
    keys: int = 0
    devices: tuple[LostDevice, ...] = ()


class Parting(msgspec.Struct, frozen=True):
    """Names a host that has left, or was forgotten: `is_awaited`, a command waits to be told what was freed."""

    number: int
    node_id: str
    is_awaited: bool


async def note(db: aiosqlite.Connection, node_id: str, kind: str, now: int) -> int | None:
    """Notes a host whose claims are to be freed, `kind` LEFT or FORGOTTEN. Returns the number under which it is told.

    None: too much is noted already.
    """
    await db.execute("DELETE FROM fleet_intents WHERE node_id = ? AND operation = ?", (_HUB, ANSWERED))
    return await fleet_requests.intend(db, _HUB, kind, node_id.encode(), now)


async def noted(db: aiosqlite.Connection) -> list[Parting]:
    """Returns the hosts whose claims are still to be freed, the oldest first."""
    found = await fleet_requests.intents(db, _HUB, _MOST)
    return [Parting(each.number, each.request.decode(), each.operation == FORGOTTEN) for each in found]


async def freed(db: aiosqlite.Connection, parting: Parting, what: FreedClaims) -> None:
    """Notes that all is freed."""
    if parting.is_awaited:
        await fleet_requests.refuse(db, parting.number, msgspec.json.encode(what).decode())
    else:
        await fleet_requests.done(db, parting.number)


async def told(db: aiosqlite.Connection, number: int) -> FreedClaims | None:
    """Returns what was freed; None: it is not freed yet."""
    left = await fleet_requests.outcome(db, number)
    if left is None or left.operation != ANSWERED:
        return None
    return msgspec.json.decode(left.request, type=FreedClaims)


async def heard(db: aiosqlite.Connection, number: int) -> None:
    """Deletes the answer, once the command has it."""
    await fleet_requests.done(db, number)
