"""Makes and changes devices of this exit, for its own API and for other exits': claims keys and names in the fleet."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from appliance.domain import device_name
from appliance.domain.errors import FleetError
from appliance.fleet.owner.claimed_opening import KeyWish

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from appliance.domain.device import Device
    from appliance.domain.entities import Account
    from appliance.fleet.claims.claiming import Claims
    from appliance.fleet.owner.claimed_opening import KeyClaims
    from appliance.sessions.devices.adding import DeviceNoted
    from appliance.sessions.devices.changing import Resolvers
    from appliance.sessions.devices.service import DeviceService, DeviceView
    from appliance.sessions.opening import SessionRequest

    T = TypeVar("T")

log = logging.getLogger(__name__)

PATIENCE_S = 1.5


class ClaimedDevices:
    """Adds and changes devices here, whose keys and names are claimed."""

    def __init__(self, devices: DeviceService, claims: Claims, key_claims: KeyClaims) -> None:
        self._devices = devices
        self._claims = claims
        self._keys = key_claims

    async def add(
        self, account: Account, name: str, request: SessionRequest, op: str, noted: DeviceNoted | None = None
    ) -> Device:
        """Adds a device. Raises as `DeviceService.install` does, and what the ledger refuses with."""
        key = request.public_key or b""

        async def make() -> Device:
            return await self._devices.install(account, name, request, noted)

        wish = KeyWish(account, key, op, device=True)
        return await self._named(account, name, op, lambda: self._keys.around(wish, make, lambda made: made.id))

    async def edit(
        self, account: Account, device_id: str, op: str, *, name: str | None, paused: bool | None
    ) -> DeviceView:
        """Changes a device. Raises as `DeviceService.edit` does, and DeviceNameTaken: elsewhere in the fleet."""
        before = (await self._devices.find(account, device_id)).device.name

        async def change() -> DeviceView:
            return await self._devices.edit(account, device_id, name=name, paused=paused)

        if name is None or device_name.key(name) == device_name.key(before):
            return await change()
        view = await self._named(account, name, op, change)
        await self._release_name(account, before)
        return view

    async def change_key(
        self, account: Account, device_id: str, public_key: bytes, dns: Resolvers, token_hash: bytes, op: str
    ) -> Device:
        """Gives a device another key. Raises as `DeviceService.change_key` does, and what the ledger refuses with."""
        before = (await self._devices.find(account, device_id)).device.public_key

        async def change() -> Device:
            return await self._devices.change_key(account, device_id, public_key, dns, token_hash)

        if before == public_key:
            return await change()
        wish = KeyWish(account, public_key, op, device=True)
        device = await self._keys.around(wish, change, lambda made: made.id)
        self._keys.release_later(before, "")
        return device

    async def remove(self, account: Account, device_id: str) -> DeviceView:
        """Removes a device; its name and key are free. Raises as `DeviceService.remove` does."""
        view = await self._devices.remove(account, device_id)
        self._keys.release_later(view.device.public_key, "")
        await self._release_name(account, view.device.name)
        return view

    async def _named(self, account: Account, name: str, op: str, make: Callable[[], Awaitable[T]]) -> T:
        """Returns what `make` makes under the name, which is claimed. Raises DeviceNameTaken."""
        key = device_name.key(name)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._claims.claim_name(account.id, key, op)
        except (FleetError, TimeoutError) as error:
            log.info("a device's name was not claimed, as the ledger has not answered: %s", error)
        try:
            return await make()
        except BaseException:
            await asyncio.shield(self._release_name(account, name, op))
            raise

    async def _release_name(self, account: Account, name: str, op: str = "") -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._claims.release_name(account.id, device_name.key(name), op)
        except (FleetError, TimeoutError) as error:
            log.info("a device's name was not given up: %s", error)
