"""Serves this host's API for the devices of all exits: asks the one that has a device, or is to have it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.domain.errors import (
    DeviceNotFound,
    NoActiveNodeInRegion,
    NoActiveNodes,
    NotAnswered,
    PeerApplyFailed,
)
from appliance.fleet.accounts.caller import token_of
from appliance.fleet.routing.attempts import new_op
from appliance.fleet.routing.elsewhere import CHANGE_S, ONE_S
from appliance.fleet.rpc.facts import ElsewhereSession
from appliance.fleet.rpc.operations import (
    DEVICE_ADD,
    DEVICE_CHANGE,
    DEVICE_LIST,
    DEVICE_PLACE,
    DEVICE_REMOVE,
    DEVICE_ROTATE,
    DEVICE_SHOW,
    AddDeviceHere,
    EditDeviceHere,
    ListOfAccount,
    OneOfAccount,
    RemoveDeviceHere,
    RotateDeviceHere,
)
from appliance.network.wireguard import keys
from appliance.sessions.devices.service import HandedOut

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.domain.device import Device
    from appliance.domain.entities import Account, Session
    from appliance.fleet.owner.claimed_devices import ClaimedDevices
    from appliance.fleet.routing.elsewhere import Elsewhere
    from appliance.fleet.rpc.operations import DeviceMade, Place
    from appliance.network.wireguard.client_config import TunnelFacts
    from appliance.sessions.devices.changing import Resolvers
    from appliance.sessions.devices.service import DeviceService, DeviceView
    from appliance.sessions.opening import SessionRequest

    Made = tuple[Device, TunnelFacts, str]  # a device, what its file says, and where its exit is


class DeviceRouter:
    """Offers what DeviceService does, for the devices of the whole fleet. Accounts are Callers, with their tokens.

    Each method raises StoreUnavailable: if the store of the exit that is asked fails; each but `page` and `names`
    PeerApplyFailed: if that exit does not answer. `region`: this exit's.
    """

    def __init__(self, *, devices: DeviceService, changes: ClaimedDevices, elsewhere: Elsewhere, region: str) -> None:
        self._devices = devices
        self._changes = changes
        self._elsewhere = elsewhere
        self._region = region

    # Asking -------------------------------------------------------------------------------------------------

    async def find(self, account: Account, device_id: str) -> DeviceView:
        """Returns one of the account's devices. Raises DeviceNotFound."""
        owner = await self._owner(account, device_id)
        if owner == self._elsewhere.own_id:
            return await self._devices.find(account, device_id)
        asked = OneOfAccount(token_of(account), device_id)
        return (await self._elsewhere.placing.twice(owner, DEVICE_SHOW, asked, ONE_S)).view(account)

    async def page(self, account: Account, *, before: str | None, limit: int) -> list[DeviceView]:
        """Returns up to `limit` of the account's devices on the exits that answer, the largest (created_at, id) first.

        Raises DeviceNotFound: if there is no place in the order with that id.
        """
        place = None if before is None else await self._place_of(account, before)
        answers = await self._elsewhere.ask_all(DEVICE_LIST, ListOfAccount(token_of(account), place, limit))
        views = await self._devices.page_by_time(account, before=place, limit=limit)
        for node_id, answer in answers.items():
            told = () if answer is None else answer.devices
            views += [each.view(account) for each in told if self._elsewhere.may_tell(node_id, each.id)]
        return sorted(views, key=lambda each: (each.device.created_at, each.device.id), reverse=True)[:limit]

    async def _place_of(self, account: Account, device_id: str) -> Place:
        owner = await self._owner(account, device_id)
        if owner == self._elsewhere.own_id:
            return await self._devices.place_of(account, device_id)
        asked = OneOfAccount(token_of(account), device_id)
        return (await self._elsewhere.placing.twice(owner, DEVICE_PLACE, asked, ONE_S)).place

    async def names(self, sessions: Iterable[Session]) -> dict[str, str]:
        """Returns the names of these sessions' devices, by id; those of other exits came with their sessions."""
        listed = list(sessions)
        away = [each for each in listed if isinstance(each, ElsewhereSession)]
        names = {each.device_id: each.device_name for each in away if each.device_name is not None}
        return names | await self._devices.names(each for each in listed if not isinstance(each, ElsewhereSession))

    async def _owner(self, account: Account, device_id: str) -> str:
        """Returns the exit that has a device. The id of one that is older than the fleet does not say it."""
        marked, own_id = self._elsewhere.owner_of(device_id), self._elsewhere.own_id
        if marked is not None:
            return marked
        try:
            await self._devices.place_of(account, device_id)
        except DeviceNotFound:
            answers = await self._elsewhere.ask_all(DEVICE_PLACE, OneOfAccount(token_of(account), device_id))
            return next((node for node, place in answers.items() if place is not None), own_id)
        return own_id

    # Changing -----------------------------------------------------------------------------------------------

    async def add(self, account: Account, name: str, request: SessionRequest) -> HandedOut:
        """Adds a device on an exit of the region, whose private key stays here. Raises what that exit refuses with."""
        private_key, public_key = keys.client_pair(request.public_key)
        wanted = replace(request, public_key=public_key)

        async def here(op: str) -> Made:
            device = await self._changes.add(account, name, wanted, op)
            return device, self._devices.tunnel_of(device), self._devices.public_ip

        async def there(node_id: str, op: str, timeout_s: float) -> Made:
            asked = AddDeviceHere(op, token_of(account), name, request.region, public_key, request.ipv6)
            return self._made(
                account, await self._elsewhere.exits.ask(node_id, DEVICE_ADD, asked, timeout_s, request.region)
            )

        try:
            made = await self._elsewhere.placing.place(request.region, here, there)
        except (NoActiveNodes, NoActiveNodeInRegion):
            if request.region != self._region:
                raise
            made = await here(new_op())  # a drained exit takes devices, which are held
        return _handed_out(made, private_key, request.dns)

    @staticmethod
    def _made(account: Account, answer: DeviceMade) -> Made:
        """Raises NotAnswered: if no file can be made of it."""
        try:
            return answer.device.device(account), answer.tunnel.facts(), answer.device.public_ip
        except ValueError as error:
            raise NotAnswered(f"an exit has answered what no file can say: {error}") from error

    async def edit(self, account: Account, device_id: str, *, name: str | None, paused: bool | None) -> DeviceView:
        """Changes a device. Raises DeviceNotFound or DeviceNameTaken."""
        owner = await self._owner(account, device_id)
        if owner == self._elsewhere.own_id:
            return await self._changes.edit(account, device_id, new_op(), name=name, paused=paused)
        asked = EditDeviceHere(new_op(), token_of(account), device_id, name, paused)
        return (await self._elsewhere.placing.twice(owner, DEVICE_CHANGE, asked, CHANGE_S)).view(account)

    async def rotate(
        self, account: Account, device_id: str, public_key: bytes | None, dns: Resolvers, token_hash: bytes
    ) -> HandedOut:
        """Gives a device another key; None: it is made here, and stays here. Raises as `DeviceService.rotate` does.

        If its exit's answer is lost, the device may have the new key all the same, of which there is no file.
        """
        private_key, public_key = keys.client_pair(public_key)
        owner = await self._owner(account, device_id)
        if owner == self._elsewhere.own_id:
            device = await self._changes.change_key(account, device_id, public_key, dns, token_hash, new_op())
            made = device, self._devices.tunnel_of(device), self._devices.public_ip
            return _handed_out(made, private_key, dns)
        texts = None if dns is None else tuple(map(str, dns))
        asked = RotateDeviceHere(new_op(), token_of(account), device_id, public_key, texts)
        answer = await self._elsewhere.placing.twice(owner, DEVICE_ROTATE, asked, CHANGE_S)
        try:
            return _handed_out(self._made(account, answer), private_key, dns)
        except NotAnswered as error:
            raise PeerApplyFailed from error

    async def remove(self, account: Account, device_id: str) -> DeviceView:
        """Removes a device, and returns it as it was last. Raises DeviceNotFound."""
        owner = await self._owner(account, device_id)
        if owner == self._elsewhere.own_id:
            return await self._changes.remove(account, device_id)
        asked = RemoveDeviceHere(new_op(), token_of(account), device_id)
        return (await self._elsewhere.placing.twice(owner, DEVICE_REMOVE, asked, CHANGE_S)).view(account)

    async def settled(self) -> None:
        """Waits until no request for this exit's devices waits."""
        await self._devices.settled()


def _handed_out(made: Made, private_key: bytes | None, dns: Resolvers) -> HandedOut:
    device, tunnel, public_ip = made
    pair = None if private_key is None else (private_key, device.public_key)
    return HandedOut(device, tunnel.file(pair, dns), public_ip)
