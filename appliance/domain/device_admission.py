"""Decides whether an account may have another device, or a device another name or key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.errors import DeviceLimitReached, DeviceNameTaken, InvalidRequest, KeyInUse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.domain.errors import ApplianceError


def refusal(
    account_id: str, *, key_holders: Iterable[str] = (), namesake: bool = False, count: int = 0, most: int | None = 0
) -> ApplianceError | None:
    """Returns why an account may not have the device, name or key that it asks for, or None.

    `key_holders`: the accounts of a device and of an unfinished session that have the key. `namesake`: another device
    of the account has the name. `count`: how many devices the account has; `most`: how many it may have, 0 for any
    number, None for none.
    """
    holders = set(key_holders)
    if holders - {account_id}:
        return InvalidRequest("client_public_key is in use by another account")
    if holders:
        return KeyInUse()
    if namesake:
        return DeviceNameTaken()
    if most is None or 0 < most <= count:
        return DeviceLimitReached()
    return None
