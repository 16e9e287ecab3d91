"""Reads the unfinished sessions from the store into memory: at the start, when an admin command has changed them, and
when a transaction failed, which may have been committed all the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain.errors import StoreUnavailable
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import node as node_row
from appliance.store.queries import peers
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.domain.clock import Moment
    from appliance.domain.entities import Account, Baseline, Session
    from appliance.sessions.address_quarantine import Addresses
    from appliance.sessions.records import Records
    from appliance.sessions.undo import Undo
    from appliance.store.token_cache import Tokens


@dataclass(frozen=True, slots=True)
class _Found:
    sessions: list[Session]
    baselines: dict[bytes, Baseline]
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
        self._correct_pool(found.sessions)
        records.live.load(found.sessions, found.baselines, found.accounts, found.heartbeat)
        await records.meter.catch_up()

    async def _settle_moved(self, found: _Found) -> bool:
        """Counts what accounts that have another tier now have used so far, into the windows of the one that they had.

        Returns whether anything was counted.
        """
        live = self._records.live
        had = {account.id: account.tier for account in live.owners()}
        moved = any(had.get(account.id, account.tier) is not account.tier for account in found.accounts)
        if not moved:
            return False
        if not live.in_sync:
            accounts = [replace(account, tier=had.get(account.id, account.tier)) for account in found.accounts]
            live.load(found.sessions, found.baselines, accounts, found.heartbeat)
        try:
            return await self._records.meter.settle_moved(found.accounts)
        except StoreUnavailable:
            live.mark_stale()
            raise

    async def _read(self) -> _Found:
        async with self._records.committing() as db:
            await self._records.ended.write(db)
            await self._undo.write(db)
            await rows.close_for_disabled_accounts(db)
            found = _Found(
                await rows.unfinished(db),
                await peers.baselines(db),
                await account_rows.of_unfinished_sessions(db),
                (await node_row.read(db)).heartbeat,
            )
        self._records.ended.written()
        return found

    def _correct_pool(self, unfinished: Iterable[Session]) -> None:
        """Corrects the pool: the store's rows and openings to be undone hold addresses, and nothing else."""
        held = self._undo.offsets().union(session.address_offset for session in unfinished)
        for offset in self._addresses.pool.unlike(held):
            if offset in held:
                self._addresses.pool.reserve(offset)
            else:
                self._addresses.quarantine.add(offset)
