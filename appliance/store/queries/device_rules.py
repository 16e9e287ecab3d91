"""Decides on changes of devices by what the store holds, in the transaction that makes the change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain import device_admission
from appliance.store.queries import devices, sessions

if TYPE_CHECKING:
    import aiosqlite

    from appliance.domain.entities import Reason
    from appliance.domain.errors import ApplianceError


async def refusal(
    db: aiosqlite.Connection,
    account_id: str,
    *,
    public_key: bytes | None = None,
    name: str | None = None,
    device_id: str = "",
    most: int | None = 0,
) -> ApplianceError | None:
    """Returns why the account may not have a device with this key or name, or None. A None of them is not asked for.

    `device_id`: the device that is to have them; "": a new one, and the account may have `most`, 0 for any number.
    """
    namesake = None if name is None else await devices.by_name(db, account_id, name)
    return device_admission.refusal(
        account_id,
        key_holders=() if public_key is None else await _holders(db, public_key),
        namesake=namesake is not None and namesake.id != device_id,
        count=await devices.count_of(db, account_id) if most else 0,
        most=most,
    )


async def _holders(db: aiosqlite.Connection, public_key: bytes) -> set[str]:
    """Returns the accounts of a device and of unfinished sessions that have the key."""
    device, unfinished = await devices.by_key(db, public_key), await sessions.unfinished_with(db, public_key)
    return {s.account_id for s in unfinished} | (set() if device is None else {device.account_id})


async def end_session(db: aiosqlite.Connection, device_id: str, reason: Reason) -> bool:
    """Marks the device's session closing; returns whether it had one."""
    unfinished = await sessions.unfinished_of_device(db, device_id)
    return await sessions.mark_closing(db, [s.id for s in unfinished], reason) > 0
