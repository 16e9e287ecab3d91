"""Offers what may be asked for of an account's devices: to add, find, list, change and remove them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from appliance.domain import accounting
from appliance.domain.device import REMOVED, Condition, Device
from appliance.domain.errors import DeviceNotFound, PeerApplyFailed, SubnetExhausted
from appliance.network.wireguard import keys
from appliance.sessions.devices.adding import AddDevice
from appliance.sessions.devices.changing import EditDevice, RemoveDevice, RotateDevice
from appliance.store.queries import devices as rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.domain.charges import Amount
    from appliance.domain.entities import Account, Session
    from appliance.network.exit_node import Exit
    from appliance.network.wireguard.client_config import TunnelFacts
    from appliance.sessions.address_quarantine import AddressQuarantine
    from appliance.sessions.devices.adding import DeviceNoted
    from appliance.sessions.devices.changing import Resolvers
    from appliance.sessions.devices.policy import DevicePolicy
    from appliance.sessions.opening import SessionRequest
    from appliance.sessions.peer_access import PeerAccess
    from appliance.sessions.records import Records
    from appliance.sessions.waiting import Queue, Waiting

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HandedOut:
    """Holds a device with the file with which its client connects, and what clients are told of the exit."""

    device: Device
    wg_config: str = field(repr=False)  # may hold a private key
    public_ip: str


@dataclass(frozen=True, slots=True)
class DeviceView:
    """Holds a device as of now. `session`: the one that it has, which has used `used` so far. `endpoint`: what a file
    made now would say."""

    device: Device
    condition: Condition
    session: Session | None
    used: Amount | None
    public_ip: str
    endpoint: str
    now_ms: int


class DeviceService:
    """Serves requests for devices. Each method raises StoreUnavailable: if the store fails."""

    def __init__(
        self,
        *,
        records: Records,
        queue: Queue,
        peers: PeerAccess,
        quarantine: AddressQuarantine,
        exit_: Exit,
        policy: DevicePolicy,
    ) -> None:
        self._records = records
        self._queue = queue
        self._peers = peers
        self._quarantine = quarantine
        self._exit = exit_
        self._policy = policy

    # Asking -------------------------------------------------------------------------------------------

    async def find(self, account: Account, device_id: str) -> DeviceView:
        """Returns one of the account's devices. Raises DeviceNotFound."""
        async with self._records.store.read() as db:
            device = await rows.by_id(db, account.id, device_id)
        if device is None:
            raise DeviceNotFound
        (view,) = await self._views(account, [device])
        return view

    async def page(self, account: Account, *, before: str | None, limit: int) -> list[DeviceView]:
        """Returns up to `limit` of the account's devices, newest first. `before`: the last id of the previous page.

        Raises DeviceNotFound: if there is no place in the order with that id.
        """
        async with self._records.store.read() as db:
            if before is not None and not await rows.has_place(db, account.id, before):
                raise DeviceNotFound
            found = await rows.page(db, account.id, limit, before)
        return await self._views(account, found)

    async def place_of(self, account: Account, device_id: str) -> tuple[int, str]:
        """Returns (created_at, id) of one of the account's devices, for `page_by_time`. Raises DeviceNotFound."""
        async with self._records.store.read() as db:
            place = await rows.place_of(db, account.id, device_id)
        if place is None:
            raise DeviceNotFound
        return place

    async def page_by_time(self, account: Account, *, before: tuple[int, str] | None, limit: int) -> list[DeviceView]:
        """Returns up to `limit` of the account's devices, the largest (created_at, id) first, of those below `before`.

        It is the order that several exits have in common.
        """
        async with self._records.store.read() as db:
            found = await rows.page_by_time(db, account.id, before, limit)
        return await self._views(account, found)

    async def names(self, sessions: Iterable[Session]) -> dict[str, str]:
        """Returns the names of these sessions' devices, by id: removed ones too, as long as the store has them."""
        device_ids = {session.device_id for session in sessions if session.device_id}
        known = {id_: device.name for id_ in device_ids if (device := self._records.devices.by_id(id_)) is not None}
        if len(known) == len(device_ids):
            return known
        async with self._records.store.read() as db:
            return known | await rows.names(db, device_ids - known.keys())

    # Changing -----------------------------------------------------------------------------------------

    async def add(self, account: Account, name: str, request: SessionRequest) -> HandedOut:
        """Adds a device, and writes its file. Raises as `install` does."""
        private_key, public_key = keys.client_pair(request.public_key)
        device = await self.install(account, name, dataclasses.replace(request, public_key=public_key))
        return self._handed_out(device, private_key, request.dns)

    async def install(
        self, account: Account, name: str, request: SessionRequest, noted: DeviceNoted | None = None
    ) -> Device:
        """Adds a device with the public key of the request, which must have one. One that may not connect now is made
        all the same, and held. `noted`: as in AddDevice.

        Raises PeerApplyFailed: if its peer could not be installed in time; nothing is left of it then. Raises
        InvalidToken, or the error with which policy, placement or the pool refuses.
        """
        deadline, key, token = self._peers.deadline(), request.public_key or b"", request.token_hash
        while True:
            wanted = AddDevice(account, name, request.region, key, token, ipv6=request.ipv6, noted=noted)
            try:
                return await self._answer(wanted, deadline)
            except SubnetExhausted:
                if not await self._quarantine.released_by(deadline):
                    raise

    async def edit(self, account: Account, device_id: str, *, name: str | None, paused: bool | None) -> DeviceView:
        """Gives a device another name, keeps it from connecting or lets it; None: as it is.

        Raises DeviceNotFound or DeviceNameTaken. Raises PeerApplyFailed: if its peer could not be removed in time.
        """
        if name is not None or paused is not None:
            await self._answer(EditDevice(account, device_id, name, paused), self._peers.deadline())
        return await self.find(account, device_id)

    async def rotate(
        self, account: Account, device_id: str, public_key: bytes | None, dns: Resolvers, token_hash: bytes
    ) -> HandedOut:
        """Gives a device another key; None: the server makes it. The old one is dead when this returns.

        Raises DeviceNotFound, KeyInUse or InvalidRequest. Raises PeerApplyFailed: if the peers could not be changed in
        time; the device is then as it was.
        """
        private_key, public_key = keys.client_pair(public_key)
        device = await self.change_key(account, device_id, public_key, dns, token_hash)
        return self._handed_out(device, private_key, dns)

    async def change_key(
        self, account: Account, device_id: str, public_key: bytes, dns: Resolvers, token_hash: bytes
    ) -> Device:
        """Gives a device this key, for a file that another exit writes. Raises as `rotate` does."""
        wanted = RotateDevice(account, device_id, public_key, self._endpoint(), dns, token_hash)
        return await self._answer(wanted, self._peers.deadline())

    async def remove(self, account: Account, device_id: str) -> DeviceView:
        """Removes a device, and returns it as it was last; its peer is gone. Raises as `edit` does."""
        device = await self._answer(RemoveDevice(account, device_id), self._peers.deadline())
        return self._view(device, REMOVED, None)

    async def settled(self) -> None:
        """Waits until no request waits."""
        await self._queue.settled()

    async def _answer(self, request: Waiting[T], deadline: float) -> T:
        try:
            return await self._queue.ask(request, deadline)
        except TimeoutError as error:
            raise PeerApplyFailed from error

    def tunnel_of(self, device: Device) -> TunnelFacts:
        """Returns what a file of the device says that is made now."""
        return self._exit.tunnel_of_device(device, self._exit.client_settings.endpoint_of(self._policy.public_ip))

    @property
    def public_ip(self) -> str:
        """Returns what clients are told of the exit."""
        return self._policy.public_ip

    # What is answered ---------------------------------------------------------------------------------

    def _endpoint(self) -> str:
        return str(self._exit.client_settings.endpoint_of(self._policy.public_ip))

    def _handed_out(self, device: Device, private_key: bytes | None, dns: Resolvers) -> HandedOut:
        pair = None if private_key is None else (private_key, device.public_key)
        return HandedOut(device, self.tunnel_of(device).file(pair, dns), self._policy.public_ip)

    async def _views(self, account: Account, stored: Iterable[Device]) -> list[DeviceView]:
        """What sessions have used is as memory has it: the store is told of ends later."""
        standing = await self._policy.standing(account)
        views = []
        for each in stored:
            known, session = self._records.devices.by_id(each.id), self._records.live.of_device(each.id)
            device = each if known is None else _with_totals(each, known)
            views.append(self._view(device, standing.condition(device, session), session))
        return views

    def _view(self, device: Device, condition: Condition, session: Session | None) -> DeviceView:
        now = self._records.clock.now()
        used = None if session is None else accounting.total(session) + accounting.running(session, now)
        return DeviceView(
            device=device,
            condition=condition,
            session=session,
            used=used,
            public_ip=self._policy.public_ip,
            endpoint=self._endpoint(),
            now_ms=now.wall_ms,
        )


def _with_totals(device: Device, known: Device) -> Device:
    return replace(
        device,
        bytes_in=known.bytes_in,
        bytes_out=known.bytes_out,
        counted_ms=known.counted_ms,
        last_handshake_at=known.last_handshake_at,
    )
