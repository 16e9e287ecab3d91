"""How fast an exit asks about many accounts: as fast as the ledger answers, a bounded number at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from appliance.config.load import parse_settings
from appliance.domain.clock import HostClock
from appliance.domain.entities import Account
from appliance.domain.errors import CutOff
from appliance.domain.tiers import Tier
from appliance.domain.windows import Windows
from appliance.fleet.quota import leasing as module
from appliance.fleet.quota import retelling
from appliance.fleet.quota.holder import Own, Sharing
from appliance.fleet.quota.leasing import AT_ONCE, Leasing
from appliance.fleet.quota.messages import LeaseTold, WindowTold
from appliance.fleet.quota.retelling import Retelling
from appliance.metering.lending import GrantSource

if TYPE_CHECKING:
    import pytest

    from appliance.fleet.quota.holder import Borrowed
    from appliance.fleet.quota.messages import LeaseAsk

IDS = [f"acc_{number}" for number in range(300)]
ACCOUNTS = {each: Account(each, each, Tier.FREE, disabled=False, created_at=1) for each in IDS}
TIER = parse_settings('[tiers.free]\nbytes_limit = "1 GB"\nseconds_limit = "0s"\n', {}, "host").tiers[Tier.FREE]


class BusyLedger:
    """Answers all requests. `most`: how many awaited their answers at once; `refuses`: accounts it does not know of."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.waiting = self.most = 0
        self.refuses: set[str] = set()
        self.told_all: list[str] = []
        self.all_asked = asyncio.Event()

    async def lease(self, asked: LeaseAsk, timeout_s: float) -> LeaseTold:
        del timeout_s
        self.asked.append(asked.account)
        if set(self.asked) == set(ACCOUNTS):
            self.all_asked.set()
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(0)
        self.waiting -= 1
        if asked.account in self.refuses:
            raise CutOff("no answer")
        return LeaseTold(asked.e, asked.q, WindowTold(1, asked.traffic.want, 0, 1), WindowTold())

    async def say_all_is_told(self, memory: str) -> bool:
        self.told_all.append(memory)
        return True


class ManyAccounts:
    """Has one live session of each account, as OwnUse says it."""

    tier = staticmethod(lambda _account: TIER)
    live = sessions = staticmethod(lambda _account_id: 1)
    with_sessions = staticmethod(lambda: list(ACCOUNTS))
    forget_seen = note_seen = staticmethod(lambda *_: None)

    async def account(self, account_id: str) -> Account:
        return ACCOUNTS[account_id]

    def own(self, account: Account, opening: int) -> Own:
        return Own(account.id, Windows(), 1, 1 + opening)

    async def adopt(self, *_: object) -> None:
        pass


class NothingKept:
    async def load(self, wall_ms: int) -> dict[str, Borrowed]:
        del wall_ms
        return {}

    def note(self, *_: object) -> None:
        pass

    async def save(self) -> None:
        pass


def borrowing(ledger: BusyLedger) -> Leasing:
    return Leasing(
        ledger,  # type: ignore[arg-type]
        ManyAccounts(),  # type: ignore[arg-type]
        NothingKept(),  # type: ignore[arg-type]
        HostClock(),
        GrantSource(),
        sharing=lambda: Sharing(2),
        wake=lambda: None,
    )


def test_next_account_is_asked_about_as_soon_as_another_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 3600.0)  # it waits for no look
    ledger = asyncio.run(_asked_about_all())
    assert ledger.most <= AT_ONCE


async def _asked_about_all() -> BusyLedger:
    ledger = BusyLedger()
    leasing = borrowing(ledger)
    await leasing.load()
    running = asyncio.create_task(leasing.run())
    try:
        async with asyncio.timeout(30):
            await ledger.all_asked.wait()
    finally:
        running.cancel()
        await asyncio.wait([running])
    return ledger


def test_new_memory_is_told_of_many_accounts_at_once_and_of_each_until_it_has_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retelling, "A_SECOND", 100_000)
    asyncio.run(_tell_new_memory())


async def _tell_new_memory() -> None:
    ledger = BusyLedger()
    leasing = borrowing(ledger)
    await leasing.load()
    while len(leasing.accounts()) < len(ACCOUNTS):
        leasing.look()
        await leasing.settled()

    async def memory() -> str:
        return "another"

    again = Retelling(leasing, ledger, memory)  # type: ignore[arg-type]
    ledger.asked, ledger.most, ledger.refuses = [], 0, {"acc_7"}
    await again.look()
    assert set(ledger.asked) == set(ACCOUNTS)
    assert 1 < ledger.most <= retelling.AT_ONCE
    assert ledger.told_all == []

    ledger.asked, ledger.refuses = [], set()
    await again.look()
    assert (ledger.asked, ledger.told_all) == (["acc_7"], ["another"])
    await again.look()
    assert ledger.told_all == ["another"]
