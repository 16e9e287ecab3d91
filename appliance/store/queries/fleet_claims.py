"""Keeps what commands on this host have its running server claim for devices in the fleet, and give up.

Beside what is to be asked of other exits, in the same table, with no exit's id.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import msgspec

from appliance.store.queries import fleet_requests

if TYPE_CHECKING:
    import aiosqlite

    from appliance.store.queries.fleet_requests import Intent

CLAIM, RELEASE = "claim", "release"
_HERE = ""


class DeviceClaim(msgspec.Struct, frozen=True, omit_defaults=True):
    """Names what a device is to have: a name in its account, a key, or both; empty ones are not asked for.

    `op`: tells a claim from others; "", where it is given up: whatever it was claimed by.
    """

    account_id: str
    op: Annotated[str, msgspec.Meta(max_length=64)] = ""
    name: str = ""
    public_key: bytes = b""


class Denial(StrEnum):
    """Says why nothing was claimed. UNANSWERED: the fleet was not reached, so that the device may be made."""

    NAME_TAKEN = "name_taken"
    KEY_IN_USE = "key_in_use"
    KEY_OF_ANOTHER = "key_of_another"
    UNANSWERED = "unanswered"


async def ask(db: aiosqlite.Connection, operation: str, claim: DeviceClaim, now: int) -> int | None:
    """Notes what the server is to do; returns its number, or None: too much is noted already."""
    return await fleet_requests.intend(db, _HERE, operation, msgspec.json.encode(claim), now)


async def asked(db: aiosqlite.Connection, most: int) -> list[Intent]:
    """Returns what the server is to do, the oldest first."""
    return await fleet_requests.intents(db, _HERE, most)


async def deny(db: aiosqlite.Connection, number: int, denial: Denial) -> None:
    """Notes why a claim was not made, for the command that waits for it."""
    await fleet_requests.refuse(db, number, f"{denial} {number}")  # rows differ in their words


async def denial(db: aiosqlite.Connection, number: int) -> tuple[bool, Denial | None]:
    """Tells whether a claim was answered, and why it was not made; None: it was."""
    left = await fleet_requests.outcome(db, number)
    if left is None:
        return True, None
    if left.operation != fleet_requests.REFUSED:
        return False, None
    return True, Denial(left.request.decode().partition(" ")[0])
