"""Reads the unfinished sessions from the store into memory: at the start, when an admin command has changed them, and
when a transaction failed, which may have been committed all the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain.errors import StoreUnavailable
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import devices as device_rows
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions as session_rows
from appliance.store.rows.device_rows import DeviceRows
from appliance.store.rows.reading import read_rows

if TYPE_CHECKING:
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Account
    from appliance.sessions.address_quarantine import Addresses
    from appliance.sessions.records import Records
    from appliance.sessions.undo import Undo
    from appliance.store.rows.offsets import Offsets
    from appliance.store.rows.session_rows import SessionRows
    from appliance.store.token_cache import Tokens


@dataclass(frozen=True, slots=True)
class _Found:
    rows: SessionRows  # of sessions that have peers
    devices: DeviceRows
    left_to_next: frozenset[bytes]  # those of them whose next session follows on the last
    offsets: Offsets  # their addresses, and those of the others
    accounts: list[Account]
    heartbeat: Moment


class Reloading:
    """Makes memory equal to the store. Its methods must be called with the exit lock held."""

    def __init__(self, *, records: Records, tokens: Tokens, addresses: Addresses, undo: Undo) -> None:
        self._records = records
        self._tokens = tokens
        self._addresses = addresses
        self._undo = undo

    async def if_stale(self) -> None:
        """Reads everything again if memory may differ from the store. Raises StoreUnavailable."""
        if not self._records.live.in_sync:
            await self.run()

    async def run(self) -> None:
        """Reads everything again. Raises StoreUnavailable."""
        records = self._records
        self._tokens.forget()
        found = await self._read()
        if await self._settle_moved(found):
            found = await self._read()
        self._correct_pool(found.offsets)
        records.live.load(found.rows, found.heartbeat)
        records.devices.load(found.devices, found.left_to_next)
        await records.meter.catch_up()

    async def _settle_moved(self, found: _Found) -> bool:
        """Counts what accounts that have another tier now have used so far, into the windows of the one that they had.

        Returns whether the store has to be read again.
        """
        live = self._records.live
        had = {account.id: account.tier for account in live.owners()}
        moved = [account for account in found.accounts if had.get(account.id, account.tier) is not account.tier]
        if not moved:
            return False
        loads = not live.in_sync
        if loads:
            for account in moved:
                found.rows.update_account(replace(account, tier=had[account.id]))
            live.load(found.rows, found.heartbeat)
        try:
            return await self._records.meter.settle_moved(found.accounts) or loads
        except StoreUnavailable:
            live.mark_stale()
            raise

    async def _read(self) -> _Found:
        async with self._records.committing() as db:
            await self._records.ended.write(db)
            await self._undo.write(db)
            await session_rows.close_for_disabled_accounts(db)
            accounts = await account_rows.of_unfinished_sessions_and_devices(db)
            rows, offsets = await read_rows(db, accounts)
            devices = DeviceRows()
            async for device in device_rows.each(db):
                devices.put(device)
                offsets.add(device.address_offset)
            left_to_next = await device_rows.left_to_next(db)
            found = _Found(rows, devices, left_to_next, offsets, accounts, (await node_row.read(db)).heartbeat)
        self._records.ended.written()
        return found

    def _correct_pool(self, offsets: Offsets) -> None:
        """Corrects the pool: the store's rows and openings to be undone hold addresses, and nothing else."""
        held = offsets | self._undo.offsets()
        for offset in self._addresses.pool.unlike(held):
            if offset in held:
                self._addresses.pool.reserve(offset)
            else:
                self._addresses.quarantine.add(offset)
