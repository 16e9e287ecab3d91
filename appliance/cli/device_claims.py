"""Has the running server of a host in a fleet claim what a device is to have, before a command makes or changes it."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from appliance.cli import device_changes, output
from appliance.domain import device_name
from appliance.domain.errors import Conflict, InvalidRequest
from appliance.store.queries import fleet_claims, fleet_requests
from appliance.store.queries.fleet_claims import CLAIM, RELEASE, Denial, DeviceClaim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiosqlite

    from appliance.cli.admin import Admin
    from appliance.cli.parameters import DeviceName
    from appliance.domain.device import Device
    from appliance.domain.errors import ApplianceError

ANSWERED_WITHIN_S = 5.0  # more than the server waits for the hub
POLL_S = 0.05


async def of_new_device(a: Admin, name: DeviceName, public_key: bytes) -> DeviceClaim | None:
    """Returns what a device is to have, with the id of its account; None: this host is in no fleet.

    Raises as `device_changes.admit` does.
    """
    if not a.state.in_fleet:
        return None
    async with a.store.read() as db:
        admitted = await device_changes.admit(db, a, name, public_key)
    return DeviceClaim(admitted.account.id, secrets.token_hex(16), device_name.key(admitted.name), public_key)


async def of_renamed(a: Admin, name: DeviceName, new_name: str) -> DeviceClaim | None:
    """Returns what a device is to have for another name; None: it has it, or this host is in no fleet.

    Raises NotFound, Conflict.
    """
    if not a.state.in_fleet:
        return None
    async with a.store.read() as db:
        stored = await device_changes.find(db, name)
        await device_changes.require_free(db, stored, new_name)
    key = device_name.key(new_name)
    return None if key == device_name.key(stored.name) else DeviceClaim(stored.account_id, secrets.token_hex(16), key)


@asynccontextmanager
async def claimed(a: Admin, account: str, wish: DeviceClaim | None) -> AsyncIterator[None]:
    """Has it claimed, and the block make the device; it is given up if that fails. None: nothing is claimed.

    Where the fleet does not answer, the command goes on, and says so. `account`: its name. Raises Conflict or
    InvalidRequest: another exit has it.
    """
    if wish is None:
        yield
        return
    denial = await _denial(a, wish)
    if denial is Denial.UNANSWERED:
        output.remark(f"not checked whether another exit has a device {account}/{wish.name}: the fleet does not answer")
    elif denial is not None:
        raise _in_words(denial, account, wish.name)
    try:
        yield
    except BaseException:
        await _give_up(a, wish)
        raise


async def release_name(db: aiosqlite.Connection, a: Admin, had: Device) -> None:
    """Has the name given up that a device had before this transaction, unless a device here has it still."""
    if a.state.in_fleet:
        wish = DeviceClaim(had.account_id, name=device_name.key(had.name))
        await fleet_claims.ask(db, RELEASE, wish, a.now)


async def _denial(a: Admin, wish: DeviceClaim) -> Denial | None:
    if not a.state.is_served():
        return Denial.UNANSWERED
    async with a.store.write() as db:
        number = await fleet_claims.ask(db, CLAIM, wish, a.clock.now().wall_ms)
    if number is None:
        return Denial.UNANSWERED
    try:
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            return await _answer(a, number)
    except TimeoutError:
        return Denial.UNANSWERED
    except BaseException:  # Ctrl-C: it may have been claimed
        await _give_up(a, wish)
        raise
    finally:
        async with a.store.write() as db:
            await fleet_requests.done(db, number)


async def _give_up(a: Admin, wish: DeviceClaim) -> None:
    async with a.store.write() as db:
        await fleet_claims.ask(db, RELEASE, wish, a.now)


async def _answer(a: Admin, number: int) -> Denial | None:
    while True:
        async with a.store.read() as db:
            answered, denial = await fleet_claims.denial(db, number)
        if answered:
            return denial
        await asyncio.sleep(POLL_S)


def _in_words(denial: Denial, account: str, name: str) -> ApplianceError:
    if denial is Denial.NAME_TAKEN:
        return Conflict(f"device name taken: {account} has a device {name} on another exit of the fleet")
    if denial is Denial.KEY_IN_USE:
        return Conflict(
            "key in use: a device or live session of the account has it on another exit of the fleet; "
            "give another --public-key"
        )
    return InvalidRequest("client_public_key is in use by another account")
