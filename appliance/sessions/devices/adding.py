"""Adds devices: decides, reserves an address, installs the peer of one that may connect, stores."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.config.log_format import about
from appliance.domain import ids
from appliance.domain.device import Device
from appliance.domain.errors import InvalidToken, PeerApplyFailed, TunnelError
from appliance.network.wireguard.tunnel import PutPeer
from appliance.sessions.waiting import Waiting
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import device_rules
from appliance.store.queries import devices as rows
from appliance.store.queries import tokens as token_rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import aiosqlite

    from appliance.domain.entities import Account
    from appliance.network.address_pool import AddressPool
    from appliance.network.exit_node import Exit
    from appliance.sessions.devices.policy import DevicePolicy
    from appliance.sessions.holding import Holding
    from appliance.sessions.node import Node
    from appliance.sessions.peer_access import PeerAccess
    from appliance.sessions.records import Records
    from appliance.sessions.reloading import Reloading
    from appliance.sessions.schedule import Schedule
    from appliance.sessions.undo import Undo

    DeviceNoted = Callable[[aiosqlite.Connection, Device], Awaitable[None]]

log = logging.getLogger(__name__)


class AddDevice(Waiting[Device]):
    """Asks for a device of `account`, in `region`. `token_hash`: of the token it is asked for with. `noted`: notes
    the device in the transaction that stores it; None: nothing is noted."""

    def __init__(
        self,
        account: Account,
        name: str,
        region: str,
        public_key: bytes,
        token_hash: bytes,
        *,
        ipv6: bool,
        noted: DeviceNoted | None = None,
    ) -> None:
        super().__init__(public_key)
        self.account = account
        self.name = name
        self.region = region
        self.token_hash = token_hash
        self.ipv6 = ipv6
        self.noted = noted


class DeviceAdding:
    """Adds devices. A device that cannot be added leaves nothing behind."""

    def __init__(
        self,
        *,
        records: Records,
        peers: PeerAccess,
        reloading: Reloading,
        pool: AddressPool,
        undo: Undo,
        exit_: Exit,
        policy: DevicePolicy,
        holding: Holding,
        schedule: Schedule,
    ) -> None:
        self._records = records
        self._peers = peers
        self._reloading = reloading
        self._pool = pool
        self._undo = undo
        self._exit = exit_
        self._policy = policy
        self._holding = holding
        self._schedule = schedule

    async def add(self, request: AddDevice) -> Device:
        """Adds a device; its peer is in the tunnel if it may connect. Must be called with the exit lock held.

        Raises PeerApplyFailed, StoreUnavailable, or the error with which policy, placement or the pool refuses.
        """
        async with self._records.store.read() as db:
            account = await self._admitted(db, request)
        if self._undo.holds(request.public_key):
            raise PeerApplyFailed  # of one that nobody was told of
        node = self._policy.place(request.region)
        device = self._device(request, account, node, await self._address())
        try:
            standing = await self._policy.standing(account)
            has_peer = standing.condition(device, None).has_peer
            if has_peer:
                await self._install(device, node)
                device = replace(device, installed=True)
            await self._store(request, device)
        except BaseException:
            self._undo.add_device(device)
            self._schedule.check_soon()
            raise
        self._records.live.know(account)
        self._records.devices.put(device)
        self._records.devices.hold(device.public_key, held=not has_peer)
        self._holding.changed(account.id, device.public_key)
        log.info("device added", extra=about(device=device.id, account=account.id))
        return device

    async def _address(self) -> int:
        """Returns an address that is free, as an offset. Raises SubnetExhausted."""
        offset = self._pool.allocate()
        try:
            async with self._records.store.read() as db:
                taken = bool(await rows.having(db, [offset], []))
        except BaseException:
            self._pool.release(offset)
            raise
        if not taken:
            return offset
        await self._reloading.run()  # a command has given it to a device, whose it stays
        return self._pool.allocate()

    async def _admitted(self, db: aiosqlite.Connection, request: AddDevice) -> Account:
        """Returns the account as the store has it. Raises InvalidToken, or what refuses the device."""
        (permit,) = await token_rows.permits(db, [(request.account.id, request.token_hash)])
        account = await account_rows.by_id(db, request.account.id)
        if account is None or not permit.usable:
            raise InvalidToken
        refused = await device_rules.refusal(
            db,
            account.id,
            public_key=request.public_key,
            name=request.name,
            most=self._policy.most(account),
        )
        if refused is not None:
            raise refused
        return account

    def _device(self, request: AddDevice, account: Account, node: Node, offset: int) -> Device:
        return Device(
            id=ids.device_id(node.id_mark),
            account_id=account.id,
            account=account.name,
            account_tier=account.tier,
            account_disabled=account.disabled,
            name=request.name,
            region=node.region,
            public_key=request.public_key,
            address_offset=offset,
            ipv6=request.ipv6 and self._exit.subnet6 is not None,
            created_at=self._records.clock.now().wall_ms,
            paused=False,
            endpoint=str(self._exit.client_settings.endpoint_of(node.public_ip)),
        )

    async def _install(self, device: Device, node: Node) -> None:
        try:
            await self._peers.tunnel.apply([PutPeer(self._exit.peer(device), fresh=True)])
        except TunnelError as error:
            node.health.apply_failed()
            log.warning("peer of a new device was not applied: %s", error, extra=about(device=device.id))
            raise PeerApplyFailed from error
        node.health.apply_succeeded()

    async def _store(self, request: AddDevice, device: Device) -> None:
        """Stores the device, if it still may be: commands change the store meanwhile, and requests are given up."""
        async with self._records.committing() as db:
            await self._admitted(db, request)
            if await rows.having(db, [device.address_offset], []):
                self._records.live.mark_stale()  # the pool is corrected as memory is read again
                raise PeerApplyFailed
            if request.abandoned:
                raise PeerApplyFailed
            await rows.insert(db, [device])
            if request.noted is not None:
                await request.noted(db, device)
        if request.abandoned:
            raise PeerApplyFailed
