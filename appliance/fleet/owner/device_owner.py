"""Serves other exits' requests for the devices of this one."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from appliance.domain import device_name
from appliance.domain.errors import DeviceNotFound, InvalidRequest, PeerApplyFailed
from appliance.fleet.owner.served_ops import OpKey
from appliance.fleet.rpc.facts import DeviceFacts, TunnelRecord, resolvers
from appliance.fleet.rpc.operations import DeviceMade, DevicesOf, Placed
from appliance.network.wireguard import keys
from appliance.sessions.opening import SessionRequest
from appliance.store.queries.fleet_requests import ServedOp

if TYPE_CHECKING:
    from collections.abc import Container

    import aiosqlite

    from appliance.domain.device import Device
    from appliance.domain.entities import Account
    from appliance.fleet.accounts.accounts_here import AccountsHere
    from appliance.fleet.owner.claimed_devices import ClaimedDevices
    from appliance.fleet.owner.served_ops import ServedOps
    from appliance.fleet.rpc.operations import (
        AddDeviceHere,
        EditDeviceHere,
        ListOfAccount,
        OneOfAccount,
        RemoveDeviceHere,
        RotateDeviceHere,
    )
    from appliance.sessions.devices.service import DeviceService, DeviceView

LONGEST_LIST = 200


class DeviceOwner:
    """Adds, shows, lists and changes devices of this exit for clients of others' APIs. `own_keys`: no client's."""

    def __init__(
        self,
        *,
        accounts: AccountsHere,
        devices: DeviceService,
        changes: ClaimedDevices,
        ops: ServedOps,
        own_keys: Container[bytes],
    ) -> None:
        self._accounts = accounts
        self._devices = devices
        self._changes = changes
        self._ops = ops
        self._own_keys = own_keys

    async def add(self, sender: str, asked: AddDeviceHere) -> DeviceMade:
        """Adds a device once for each op."""
        key = OpKey(sender, asked.op)
        made_id = (await self._ops.once(key, lambda: self._add(key, asked))).decode()
        account = await self._accounts.of_token(asked.token)
        try:
            return await self._made(account, made_id)
        except DeviceNotFound as error:
            raise PeerApplyFailed from error

    async def _add(self, key: OpKey, asked: AddDeviceHere) -> bytes:
        account = await self._accounts.of_token(asked.token)
        self._check(asked.public_key)
        name = device_name.checked(asked.name)
        request = SessionRequest(
            asked.region, asked.public_key, asked.ipv6, token_hash=self._accounts.hash_of(asked.token)
        )

        async def note(db: aiosqlite.Connection, device: Device) -> None:
            await self._ops.note(db, key, ServedOp(device.id, None, device.id.encode()))

        return (await self._changes.add(account, name, request, key.op, note)).id.encode()

    def _check(self, public_key: bytes) -> None:
        if len(public_key) != keys.KEY_LENGTH:
            raise InvalidRequest("client_public_key must be a WireGuard public key")
        keys.refuse_weak(public_key, "client_public_key", self._own_keys)

    async def _made(self, account: Account, device_id: str) -> DeviceMade:
        view = await self._devices.find(account, device_id)
        return DeviceMade(self._shown(view), TunnelRecord.of(self._devices.tunnel_of(view.device)))

    def _shown(self, view: DeviceView) -> DeviceFacts:
        return DeviceFacts.of(view)

    async def undo(self, made: ServedOp) -> None:
        """Removes the device that was made for an op. Raises PeerApplyFailed or StoreUnavailable."""
        account = await self._accounts.of_device(made.made_id or "")
        if account is not None:
            with suppress(DeviceNotFound):
                await self._changes.remove(account, made.made_id or "")

    async def show(self, asked: OneOfAccount) -> DeviceFacts:
        """Shows a device. Raises DeviceNotFound."""
        return self._shown(await self._devices.find(await self._accounts.of_token(asked.token), asked.id))

    async def list(self, asked: ListOfAccount) -> DevicesOf:
        """Lists devices by (created_at, id)."""
        account = await self._accounts.named(asked)
        limit = max(1, min(asked.limit, LONGEST_LIST))
        found = await self._devices.page_by_time(account, before=asked.before, limit=limit)
        return DevicesOf([self._shown(view) for view in found])

    async def place(self, asked: OneOfAccount) -> Placed:
        """Tells where a device stands in the lists. Raises DeviceNotFound."""
        return Placed(await self._devices.place_of(await self._accounts.named(asked), asked.id))

    async def change(self, sender: str, asked: EditDeviceHere) -> DeviceFacts:
        """Changes a device once for each op."""
        key = OpKey(sender, asked.op)

        async def change() -> bytes:
            account = await self._accounts.of_token(asked.token)
            name = None if asked.name is None else device_name.checked(asked.name)
            view = await self._changes.edit(account, asked.id, asked.op, name=name, paused=asked.paused)
            return await self._ops.note_alone(key, msgspec.json.encode(self._shown(view)))

        return msgspec.json.decode(await self._ops.once(key, change), type=DeviceFacts)

    async def rotate(self, sender: str, asked: RotateDeviceHere) -> DeviceMade:
        """Gives a device another key once for each op."""
        key = OpKey(sender, asked.op)

        async def change() -> bytes:
            account = await self._accounts.of_token(asked.token)
            self._check(asked.public_key)
            try:
                dns = resolvers(asked.dns)
            except ValueError as error:
                raise InvalidRequest("dns must be false or a list of IP addresses") from error
            now = (await self._devices.find(account, asked.id)).device
            if now.public_key != asked.public_key:  # else it was done, and not noted
                token = self._accounts.hash_of(asked.token)
                await self._changes.change_key(account, asked.id, asked.public_key, dns, token, asked.op)
            return await self._ops.note_alone(key, msgspec.json.encode(await self._made(account, asked.id)))

        return msgspec.json.decode(await self._ops.once(key, change), type=DeviceMade)

    async def remove(self, sender: str, asked: RemoveDeviceHere) -> DeviceFacts:
        """Removes a device once for each op."""
        key = OpKey(sender, asked.op)

        async def change() -> bytes:
            view = await self._changes.remove(await self._accounts.of_token(asked.token), asked.id)
            return await self._ops.note_alone(key, msgspec.json.encode(self._shown(view)))

        return msgspec.json.decode(await self._ops.once(key, change), type=DeviceFacts)
