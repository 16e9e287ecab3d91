"""Answers `lease` of the exits from the ledger's records of accounts' limits, which change by compare and set."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from appliance.domain.errors import FleetError
from appliance.fleet.accounts import ledger
from appliance.fleet.link.reading import read
from appliance.fleet.quota.escrow import LedgerFacts, QuotaRecord, decide
from appliance.fleet.quota.messages import AllNoted, Ask, LeaseAsk, ToldAll
from appliance.fleet.quota.outdated import is_outdated, is_quiet
from appliance.store.queries import accounts as account_rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from appliance.config.settings import Settings
    from appliance.domain.clock import Clock
    from appliance.domain.tiers import TierLimits
    from appliance.fleet.claims.records import ClaimRecords, KeptRecord, Versioned
    from appliance.fleet.link.wire import HubLink
    from appliance.fleet.quota.messages import LeaseTold
    from appliance.store.database import Store

TOLD = "told"  # the record of who has told all; no account has such an id
TRIES = 100  # of a change, while others change the same record


class ToldRecord(msgspec.Struct, frozen=True):
    """Names the exits that have told all they hold to this memory."""

    memory: str
    nodes: list[str]


class LeaseLedger:
    """Answers the exits by the hub's accounts and tiers. It remembers nothing but in its records.

    `members`: returns the exits of the fleet. `memory`: returns what names the ledger's memory, see ToldAll. `gen`: the
    fleet's generation: records of another one are none. A hub that was replaced may have them still when it is promoted
    again, and others have lent since.
    """

    def __init__(
        self,
        records: ClaimRecords,
        store: Store,
        clock: Clock,
        members: Callable[[], Collection[str]],
        memory: Callable[[], Awaitable[str]],
        gen: int = 0,
    ) -> None:
        self._gen = gen
        self._records = records
        self._store = store
        self._clock = clock
        self._members = members
        self._memory = memory
        self._tiers: Mapping[str, TierLimits] = {}
        self._lends = False
        self._unstored: set[tuple[str, str]] = set()  # (memory, exit): which has told all; a full bucket takes no more

    def take_over(self, settings: Settings) -> None:
        """Goes by these tiers from now on, and lends what has lapsed again, or does not."""
        self._tiers, self._lends = settings.tiers, settings.fleet.when_cut_off == "share"

    async def listen(self, link: HubLink) -> None:
        """Begins to answer. Raises what `subscribe` does."""
        await ledger.serve(link, "lease", self.answer, _can_wait)

    async def answer(self, sender: str, data: bytes) -> bytes:
        """Answers one request. Raises FleetError, StoreUnavailable, or Unreadable: it is none."""
        asked = read(data, Ask)
        if sender not in self._members():
            raise FleetError(f"{sender} is not in the fleet")
        if isinstance(asked, ToldAll):
            return msgspec.json.encode(await self._note(sender, asked))
        return msgspec.json.encode(await self._lend(sender, asked))

    async def _lend(self, node: str, asked: LeaseAsk) -> LeaseTold:
        limits, found = await asyncio.gather(self._limits_of(asked.account), self._records.get(asked.account))
        for _ in range(TRIES):
            record = self._record(found)
            told = frozenset[str]() if record.complete else frozenset(await self._told())
            given = LedgerFacts(limits, self._members(), told, self._lends, self._clock.now().wall_ms)
            wanted, answer = decide(record, node, asked, given)
            if wanted == record:
                return answer
            if await self._records.put(asked.account, msgspec.json.encode(wanted), found.revision):
                return answer
            found = await self._records.get(asked.account)
        raise FleetError("what is lent of an account changes faster than it can be lent")

    def _record(self, found: Versioned) -> QuotaRecord:
        record = None if found.value is None else msgspec.json.decode(found.value, type=QuotaRecord)
        return QuotaRecord(gen=self._gen) if record is None or record.gen != self._gen else record

    async def _limits_of(self, account_id: str) -> TierLimits:
        async with self._store.read() as db:
            account = await account_rows.by_id(db, account_id)
        if account is None:
            raise FleetError(f"there is no account {account_id}")
        limits = self._tiers.get(account.tier)
        if limits is None:
            raise FleetError("this hub does not know its tiers yet")
        return limits

    async def outdated(self, found: Sequence[KeptRecord]) -> list[KeptRecord]:
        """Returns the records that are needed no more: also of accounts that are gone, and of an earlier generation.

        Raises FleetError or StoreUnavailable.
        """
        of_accounts, now_ms = [each for each in found if each.key != TOLD], self._clock.now().wall_ms
        told, members = frozenset(await self._told()), frozenset(self._members())
        async with self._store.read() as db:  # after the records were read: an account is older than its record
            accounts = await account_rows.by_ids(db, {each.key for each in of_accounts})

        def is_needless(each: KeptRecord) -> bool:
            record, account = msgspec.json.decode(each.value, type=QuotaRecord), accounts.get(each.key)
            if account is None or record.gen < self._gen:
                return is_quiet(record, now_ms)
            limits = self._tiers.get(account.tier)
            if limits is None or record.gen > self._gen:
                return False
            return is_outdated(record, LedgerFacts(limits, members, told, self._lends, now_ms))

        return [each for each in of_accounts if is_needless(each)]

    async def _told(self) -> list[str]:
        """Returns the exits that have told all they hold."""
        found, memory = await self._records.get(TOLD), await self._memory()
        return [*_nodes(found, memory), *(node for of, node in self._unstored if of == memory)]

    async def _note(self, node: str, asked: ToldAll) -> AllNoted:
        """Notes that an exit has told all, if this is still the memory that it told it."""
        for _ in range(TRIES):
            found = await self._records.get(TOLD)
            if await self._memory() != asked.memory:
                return AllNoted(known=False)
            self._unstored.add((asked.memory, node))
            told, members = _nodes(found, asked.memory), self._members()
            wanted = sorted({*(each for each in told if each in members), node})
            record = msgspec.json.encode(ToldRecord(asked.memory, wanted))
            if wanted == told or await self._records.put(TOLD, record, found.revision):
                self._unstored.discard((asked.memory, node))
                return AllNoted(known=True)
        raise FleetError("who has told all changes faster than it can be noted")


def _can_wait(data: bytes) -> bool:
    """Tells whether no client waits for the answer, as one does for an opening. Raises Unreadable."""
    asked = read(data, Ask)
    return isinstance(asked, LeaseAsk) and asked.live_wanted <= asked.live


def _nodes(found: Versioned, memory: str) -> list[str]:
    """Returns who has told all to the memory of this name."""
    if found.value is None:
        return []
    record = msgspec.json.decode(found.value, type=ToldRecord)
    return record.nodes if record.memory == memory else []
