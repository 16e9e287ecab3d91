"""Changes devices: their names, whether they may connect, their keys; removes them. Ends what sessions that takes."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.config.log_format import about
from appliance.domain.client_file import require_reachable
from appliance.domain.device import NOTHING, Device
from appliance.domain.entities import Reason
from appliance.domain.errors import DeviceNotFound, InvalidRequest, InvalidToken, PeerApplyFailed, TunnelError
from appliance.metering.device_handshakes import given_up
from appliance.network.wireguard.tunnel import PutPeer, RemovePeer
from appliance.sessions.waiting import Waiting
from appliance.store.queries import device_rules
from appliance.store.queries import devices as rows
from appliance.store.queries import tokens as token_rows

if TYPE_CHECKING:
    import asyncio
    from ipaddress import IPv4Address, IPv6Address

    import aiosqlite

    from appliance.domain.entities import Account, Session
    from appliance.network.exit_node import Exit
    from appliance.network.wireguard.tunnel import PeerChange
    from appliance.sessions.address_quarantine import AddressQuarantine
    from appliance.sessions.arrivals import Arrivals
    from appliance.sessions.devices.policy import DevicePolicy
    from appliance.sessions.ending import Ending
    from appliance.sessions.peer_access import PeerAccess
    from appliance.sessions.records import Records
    from appliance.sessions.reloading import Reloading
    from appliance.sessions.schedule import Schedule

    Resolvers = tuple[IPv4Address | IPv6Address, ...] | None

log = logging.getLogger(__name__)


class ChangeDevice(Waiting[Device]):
    """Asks for a change of one of the account's devices. `ends`: why its session ends; None: it goes on."""

    ends: Reason | None = None
    new_key: bytes | None = None
    new_name: str | None = None
    installed = False  # whether its new key has a peer, as is known before it is stored
    token_hash = b""

    def __init__(self, account: Account, device_id: str) -> None:
        super().__init__(device_id.encode())
        self.account = account
        self.device_id = device_id

    def check(self, device: Device, exit_: Exit) -> None:
        """Raises InvalidRequest if the change does not fit the device."""

    def after(self, device: Device) -> Device | None:
        """Returns the device as it is to be; None: removed."""
        return device

    async def write(self, db: aiosqlite.Connection, now: int) -> None:
        """Makes the change in the caller's transaction, in which it was found to be right."""


class EditDevice(ChangeDevice):
    """Asks for another name, or that it may or may not connect. None: as it is."""

    def __init__(self, account: Account, device_id: str, name: str | None, paused: bool | None) -> None:
        super().__init__(account, device_id)
        self.new_name = name
        self.paused = paused
        self.ends = Reason.PAUSED if paused else None

    def after(self, device: Device) -> Device:
        return replace(
            device,
            name=device.name if self.new_name is None else self.new_name,
            paused=device.paused if self.paused is None else self.paused,
        )

    async def write(self, db: aiosqlite.Connection, now: int) -> None:  # noqa: ARG002 (only a removal is dated)
        if self.new_name is not None:
            await rows.rename(db, self.device_id, self.new_name)
        if self.paused is not None:
            await rows.pause(db, self.device_id, paused=self.paused)


class RotateDevice(ChangeDevice):
    """Asks for another key. `endpoint`, `dns`: what the new file says."""

    ends = Reason.ROTATED

    def __init__(
        self, account: Account, device_id: str, public_key: bytes, endpoint: str, dns: Resolvers, token_hash: bytes
    ) -> None:
        super().__init__(account, device_id)
        self.key = self.new_key = public_key
        self.endpoint = endpoint
        self.dns = dns
        self.token_hash = token_hash

    def check(self, device: Device, exit_: Exit) -> None:
        require_reachable(self.dns or (), ipv6=exit_.ipv6_in_file(device))

    def after(self, device: Device) -> Device:
        return replace(
            device,
            public_key=self.key,
            endpoint=self.endpoint,
            handshake_seen_ns=0,
            unfinished_rx=0,
            unfinished_tx=0,
            outdated=NOTHING,
            installed=self.installed,
            baseline=None,
        )

    async def write(self, db: aiosqlite.Connection, now: int) -> None:  # noqa: ARG002 (only a removal is dated)
        await rows.rotate(db, self.device_id, self.key, self.endpoint, installed=self.installed)


class RemoveDevice(ChangeDevice):
    """Asks for its removal. It is answered with the device as it was last."""

    ends = Reason.CLOSED

    def after(self, device: Device) -> None:  # noqa: ARG002 (it is gone)
        return None

    async def write(self, db: aiosqlite.Connection, now: int) -> None:
        await rows.remove(db, [self.device_id], now)


class SessionDue(Exception):
    """Raised if a device is about to have the session that a handshake has begun: to be waited for without the lock."""

    def __init__(self, answer: asyncio.Future[Session]) -> None:
        super().__init__()
        self.answer = answer


class DeviceChanging:
    """Changes devices. A change that fails leaves all as it was: the next tick puts back what the tunnel has lost."""

    def __init__(
        self,
        *,
        records: Records,
        peers: PeerAccess,
        reloading: Reloading,
        arrivals: Arrivals,
        ending: Ending,
        quarantine: AddressQuarantine,
        exit_: Exit,
        policy: DevicePolicy,
        schedule: Schedule,
    ) -> None:
        self._records = records
        self._peers = peers
        self._reloading = reloading
        self._arrivals = arrivals
        self._ending = ending
        self._quarantine = quarantine
        self._exit = exit_
        self._policy = policy
        self._schedule = schedule

    async def change(self, request: ChangeDevice, *, wait: bool) -> Device:
        """Makes the change, and returns the device. Must be called with the exit lock held.

        Its session has ended, and the peer of a device that may not connect is gone, when this returns. Raises
        SessionDue, if this may `wait`. Raises PeerApplyFailed, StoreUnavailable, or what refuses the change.
        """
        device = await self._current(request)
        if request.new_key is not None and self._ending.is_undone(request.new_key):
            raise PeerApplyFailed  # of one that nobody was told of
        if request.ends is Reason.PAUSED and self._is_out(device):
            request.ends = None
        if request.ends is not None:
            await self._count(device, wait=wait)
        session = None if request.ends is None else self._records.live.of_device(device.id)
        keys = {device.public_key, *(() if request.new_key is None else (request.new_key,))}
        keys |= set() if session is None else {session.public_key}
        try:
            standing = await self._policy.standing(request.account, without=session)
            wanted = request.after(device)
            may_connect = wanted is not None and standing.condition(wanted, None).has_peer
            request.installed = may_connect
            if request.ends is not None:
                await self._apply(self._peer_changes(request, keys, wanted if may_connect else None))
            ending = [] if session is None or request.ends is None else [(session, request.ends)]
            return await self._make(request, device, ending, may_connect=may_connect)
        except BaseException:
            self._records.devices.touch(keys)
            self._schedule.check_soon()
            raise

    async def _current(self, request: ChangeDevice) -> Device:
        """Returns the device as store and memory have it."""
        device = await self._read(request)
        if self._known(device):
            return device
        await self._reloading.run()  # a command has changed it
        device = await self._read(request)
        if not self._known(device):
            raise PeerApplyFailed  # and once more
        return device

    def _is_out(self, device: Device) -> bool:
        """Tells whether a device is paused and has been since the last look: it has neither a session nor a peer."""
        known = self._records.devices.get(device.public_key)
        held = self._records.devices.is_held(device.public_key)
        return known is not None and known.paused and held and self._records.live.of_device(device.id) is None

    async def _read(self, request: ChangeDevice) -> Device:
        async with self._records.store.read() as db:
            return await self._checked(db, request)

    def _known(self, device: Device) -> bool:
        known = self._records.devices.by_id(device.id)
        return known is not None and known.public_key == device.public_key

    async def _checked(self, db: aiosqlite.Connection, request: ChangeDevice) -> Device:
        """Returns the device as the store has it. Raises what refuses the change."""
        account_id, device_id = request.account.id, request.device_id
        if request.token_hash:
            (permit,) = await token_rows.permits(db, [(account_id, request.token_hash)])
            if not permit.usable:
                raise InvalidToken
        refused = await device_rules.refusal(
            db, account_id, public_key=request.new_key, name=request.new_name, device_id=device_id
        )
        if isinstance(refused, InvalidRequest):
            raise refused
        device = await rows.by_id(db, account_id, device_id)
        if device is None:
            raise DeviceNotFound
        request.check(device, self._exit)
        if refused is not None:
            raise refused
        return device

    # The tunnel ---------------------------------------------------------------------------------------

    async def _count(self, device: Device, *, wait: bool) -> None:
        """Stores what its peer has moved, before it is removed with its counters: of its session, or of none.

        Has sessions opened that handshakes have begun. What one has that could not begin is kept for the next.
        """
        records, session = self._records, self._records.live.of_device(device.id)
        try:
            seen = await records.meter.observe(() if session is None else {session.public_key})
        except TunnelError as error:
            raise PeerApplyFailed from error
        self._arrivals.look(seen)
        due = self._arrivals.asked(device.public_key) if session is None else None
        if due is not None and not wait:
            left = given_up(records.devices[device.public_key], seen.dump, seen.now)
            seen = dataclasses.replace(seen, unfinished=[*seen.unfinished, left])
        await records.meter.commit(seen)
        if due is not None and wait:
            raise SessionDue(due)

    def _peer_changes(self, request: ChangeDevice, keys: set[bytes], wanted: Device | None) -> list[PeerChange]:
        """`wanted`: the device as it is to have a peer; None: it is to have none."""
        changes: list[PeerChange] = [RemovePeer(key) for key in keys if key != request.new_key]
        if wanted is not None:
            changes.append(PutPeer(self._exit.peer(wanted), fresh=True))
        return changes

    async def _apply(self, changes: list[PeerChange]) -> None:
        try:
            await self._peers.tunnel.apply(changes)
        except TunnelError as error:
            log.warning("peer of a device was not changed: %s", error)
            raise PeerApplyFailed from error

    # The store ----------------------------------------------------------------------------------------

    async def _make(
        self, request: ChangeDevice, device: Device, ending: list[tuple[Session, Reason]], *, may_connect: bool
    ) -> Device:
        last = self._records.meter.count_time([session for session, _ in ending])
        now = self._records.clock.now().wall_ms
        async with self._records.committing() as db:
            stored = await self._checked(db, request)
            if stored.public_key != device.public_key or (request.abandoned and request.new_key is not None):
                self._records.live.mark_stale()
                raise PeerApplyFailed  # a command was faster, or the new key's file would go nowhere
            await self._ending.write_ends(db, ending, last)
            await request.write(db, now)
        self._ending.ends_committed(ending, last)
        return self._committed(request, stored, may_connect=may_connect)

    def _committed(self, request: ChangeDevice, device: Device, *, may_connect: bool) -> Device:
        """Takes the change into memory, which knows best what the device's sessions have left."""
        held = self._records.devices
        known = replace(held[device.public_key], name=device.name, paused=device.paused, endpoint=device.endpoint)
        after = request.after(known)
        if after is None or after.public_key != device.public_key:
            held.drop(device.public_key)
        if after is None:
            self._quarantine.add(device.address_offset)
            log.info("device removed", extra=about(device=device.id, account=device.account_id))
            return known
        held.put(after)
        if (request.ends is not None or after.paused != known.paused) and held.hold(
            after.public_key, held=not may_connect
        ):
            self._schedule.check_soon()  # its peer comes, if it is not there
        return after
