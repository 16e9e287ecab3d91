"""Undoes what failed or nobody was told of, sessions and devices: peer, row, address, key and place, in that order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain import accounting
from appliance.domain.accounting import Reading
from appliance.domain.clock import Moment
from appliance.domain.entities import State
from appliance.network.wireguard.tunnel import PutPeer, RemovePeer
from appliance.store.queries import devices, invoices, peers
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import aiosqlite

    from appliance.domain.device import Device
    from appliance.domain.entities import Session
    from appliance.network.exit_node import Exit
    from appliance.network.wireguard.tunnel import PeerChange
    from appliance.sessions.address_quarantine import AddressQuarantine
    from appliance.sessions.records import Records


@dataclass(frozen=True, slots=True)
class _Failed:
    """Holds an opening to undo. `replaced`: the session that stays as it was, of which it had key and address."""

    session: Session
    replaced: Session | None


class Undo:
    """Holds the openings that are to be undone. Until one is, its key, address and place are not another's.

    All but `add` and what only asks must be called with the exit lock held.
    """

    def __init__(self, records: Records, exit_: Exit, quarantine: AddressQuarantine) -> None:
        self._records = records
        self._exit = exit_
        self._quarantine = quarantine
        self._failed: dict[bytes, _Failed] = {}  # by public key
        self._devices: dict[bytes, Device] = {}  # likewise; memory has not got them

    def __bool__(self) -> bool:
        """Tells whether anything is to be undone."""
        return bool(self._failed or self._devices)

    def holds(self, public_key: bytes) -> bool:
        """Tells whether an opening with this key is to be undone."""
        return public_key in self._failed or public_key in self._devices

    def places(self, account_id: str) -> int:
        """Returns how many more of the account's sessions than are live have to be counted as such."""
        live = self._records.live.public_keys()
        own = (f for f in self._failed.values() if f.session.account_id == account_id and f.replaced is None)
        return sum(f.session.public_key not in live for f in own)

    def offsets(self) -> set[int]:
        """Returns the addresses that are not free yet."""
        own = {f.session.address_offset for f in self._failed.values() if f.replaced is None}
        return own | {device.address_offset for device in self._devices.values()}

    def add(self, session: Session, replaced: Session | None) -> None:
        """Adds an opening of which the tunnel and the store may have something, or nothing."""
        self._failed[session.public_key] = _Failed(session, replaced)

    def add_device(self, device: Device) -> None:
        """Adds a device of which the tunnel and the store may have something, or nothing."""
        self._devices[device.public_key] = device

    def forget(self, session: Session) -> None:
        """Leaves out a session that has ended meanwhile, and so has given up what it had."""
        failed = self._failed.get(session.public_key)
        if failed is not None and failed.session.id == session.id:
            del self._failed[session.public_key]

    def peer_changes(self) -> list[PeerChange]:
        """Returns what undoes the peers. A peer that is not there, or as it was, is not an error."""
        return [*(self._peer_change(failed) for failed in self._failed.values()), *map(RemovePeer, self._devices)]

    def _peer_change(self, failed: _Failed) -> PeerChange:
        if failed.replaced is None:
            return RemovePeer(failed.session.public_key)
        return PutPeer(self._exit.peer(failed.replaced))

    async def write(self, db: aiosqlite.Connection, public_keys: Iterable[bytes] | None = None) -> None:
        """Undoes the rows of these openings in the caller's transaction; None: of all, for one who reads what is there.

        A replacement that an admin has closed meanwhile leaves this to its predecessor.
        """
        keys = [*self._failed, *self._devices] if public_keys is None else list(public_keys)
        made = [self._devices[key].id for key in keys if key in self._devices]
        if made:
            await devices.remove(db, made, self._records.clock.now().wall_ms)
        failed = [self._failed[key] for key in keys if key in self._failed]
        if failed:
            await self._write(db, failed)

    async def _write(self, db: aiosqlite.Connection, failed: Sequence[_Failed]) -> None:
        stored = await rows.by_ids(db, [f.session.id for f in failed])
        # One that has ended, as others do, is not undone any more.
        ended = {session_id for session_id, session in stored.items() if session.state is State.TERMINATED}
        failed = [f for f in failed if f.session.id not in ended]
        stored = {session_id: session for session_id, session in stored.items() if session_id not in ended}
        await rows.take_back(db, stored)
        await invoices.take_back(db, stored)
        replacing = {f.replaced.id: stored.get(f.session.id) for f in failed if f.replaced is not None}
        reasons = [(session_id, None if new is None else new.reason) for session_id, new in replacing.items()]
        await rows.bring_back(db, reasons, self._records.clock.now())
        await invoices.bring_back(db, replacing)
        await _hand_back(db, {session_id: new for session_id, new in replacing.items() if new is not None})
        await peers.drop(db, [f.session.address_offset for f in failed])

    def undone(self, public_keys: Iterable[bytes]) -> None:
        """Notes that peers and rows are undone: takes the sessions out of memory, and gives up what they held."""
        live = self._records.live
        for key in public_keys:
            if (device := self._devices.pop(key, None)) is not None:
                self._quarantine.add(device.address_offset)
                continue
            failed = self._failed.pop(key)
            known = live.by_id(failed.session.id) is not None
            if failed.replaced is None:
                if known:
                    live.drop(key)
                self._quarantine.add(failed.session.address_offset)
            elif known:
                live.mark_stale()


async def _hand_back(db: aiosqlite.Connection, replacing: Mapping[str, Session]) -> None:
    """Counts what replacements have used as their predecessors' (by id): the same client has used the same peer.

    Their accounts' windows have counted it already.
    """
    readings = []
    for session_id, session in (await rows.by_ids(db, replacing)).items():
        new = replacing[session_id]
        used, begun = accounting.capped(session, accounting.total(new)), new.created_at
        after = accounting.counted(session, used, Moment(0, new.counted_until_ms, new.counted_boot_id))
        readings.append(Reading(used, begun, begun + used.time_ms, after, None))
    await peers.add_readings(db, readings)
    await invoices.add_readings(db, readings)
