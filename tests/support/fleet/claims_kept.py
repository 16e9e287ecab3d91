"""Records of claims in memory, and the contract that those on a real hub keep alike."""

from __future__ import annotations

import asyncio
import random
import secrets
from typing import TYPE_CHECKING

from appliance.domain.clock import HostClock
from appliance.domain.errors import FleetError, InvalidRequest
from appliance.fleet.claims.own_claims import OwnClaims
from appliance.fleet.claims.records import KeptRecord, Versioned
from appliance.fleet.link.wire import PREFIX

if TYPE_CHECKING:
    from appliance.fleet.claims.ledger import ClaimLedger
    from appliance.fleet.claims.records import ClaimRecords
    from appliance.fleet.link.wire import HubLink, Message

FLEET_KEY = bytes(32)


class RecordsInMemory:
    """Holds records until the process ends."""

    def __init__(self) -> None:
        self.known: dict[str, Versioned] = {}
        self._revision = 0
        self._name = secrets.token_hex(8)

    async def get(self, key: str) -> Versioned:
        return self.known.get(key, Versioned(None, 0))

    async def put(self, key: str, value: bytes, revision: int) -> bool:
        if (await self.get(key)).revision != revision:
            return False
        self._revision += 1
        self.known[key] = Versioned(value, self._revision)
        return True

    async def delete(self, key: str, revision: int) -> bool:
        found = await self.get(key)
        if found.value is None or found.revision != revision:
            return False
        del self.known[key]
        return True

    async def page(self, after: int, most: int) -> list[KeptRecord]:
        held = [KeptRecord(key, each.value or b"", each.revision) for key, each in self.known.items()]
        return sorted((each for each in held if each.revision > after), key=lambda each: each.revision)[:most]

    async def under(self, prefix: str) -> list[KeptRecord]:
        return [each for each in await self.page(0, len(self.known)) if each.key.rpartition(".")[0] == prefix[:-1]]

    async def name(self) -> str:
        return self._name

    def wipe(self) -> None:
        self.__init__()  # type: ignore[misc]  # as when the hub's disk was lost


async def keeps_the_contract(records: ClaimRecords) -> None:
    """A change names what it was made from; what is deleted is as if it had never been."""
    assert await records.get("a") == Versioned(None, 0)
    assert await records.put("a", b"1", 0)
    assert not await records.put("a", b"2", 0)
    found = await records.get("a")
    assert found.value == b"1"
    assert await records.put("a", b"2", found.revision)
    assert not await records.put("a", b"3", found.revision)
    assert not await records.delete("a", found.revision)
    newer = await records.get("a")
    assert newer.value == b"2"
    assert await records.delete("a", newer.revision)
    assert not await records.put("a", b"3", newer.revision)
    assert (await records.get("a")).value is None
    assert await records.put("a", b"4", (await records.get("a")).revision)
    assert await records.name() == await records.name()
    for key in ("d.acc_1.aa", "d.acc_1.bb", "d.acc_10.aa"):
        assert await records.put(key, b"x", 0)
    assert [each.key for each in await records.under("d.acc_1.")] == ["d.acc_1.aa", "d.acc_1.bb"]
    assert await records.under("d.acc_2.") == []
    paged, after = list[str](), 0
    while page := await records.page(after, 2):
        paged += [each.key for each in page]
        after = page[-1].revision
    assert [key for key in paged if key in ("a", "d.acc_1.aa", "d.acc_1.bb", "d.acc_10.aa")] == [
        *("a", "d.acc_1.aa", "d.acc_1.bb", "d.acc_10.aa")
    ]
    for key in ("d.acc_1.aa", "d.acc_1.bb", "d.acc_10.aa"):
        assert await records.delete(key, (await records.get(key)).revision)
    count = 20

    async def add() -> None:
        for _ in range(count):
            while True:
                read = await records.get("n")
                if await records.put("n", str(int(read.value or b"0") + 1).encode(), read.revision):
                    break

    await asyncio.gather(*(add() for _ in range(4)))
    assert (await records.get("n")).value == str(4 * count).encode()


def owner(link: HubLink, node: str) -> OwnClaims:
    return OwnClaims(link, node, FLEET_KEY, HostClock(), keys=list, names=list)


async def races(ledger: ClaimLedger, hub: HubLink, spokes: dict[str, HubLink], number: int) -> int:
    """Accounts of two exits race for one key after the other, while 30 % of the answers are lost: each has one winner.

    Returns how many requests it took.
    """
    lots, served = random.Random(1), 0  # noqa: S311 - no secret

    async def answer(message: Message) -> None:
        nonlocal served
        served += 1
        found = await ledger.claim(message.subject.split(".")[2], message.data)
        if lots.random() > 0.3:
            await message.answer(found)

    await hub.subscribe(f"{PREFIX}.led.*.claim", answer, "ledger")

    async def claim(node: str, link: HubLink, key: bytes) -> bool:
        op, claims = secrets.token_hex(16), owner(link, node)
        while True:
            try:
                await claims.claim_key(key, f"acc_{node}", op, device=False)
            except FleetError:
                continue
            except InvalidRequest:
                return False
            return True

    for _ in range(number // 25):
        keys = [secrets.token_bytes(32) for _ in range(25)]
        won = await asyncio.gather(
            *(asyncio.gather(*(claim(node, link, key) for node, link in spokes.items())) for key in keys)
        )
        assert [sum(each) for each in won] == [1] * len(keys)
    return served
