"""What commands note for the running server to claim is claimed, refused or given up, in its order."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from appliance.domain import device_name
from appliance.fleet.claims.claims import record_of_name
from appliance.fleet.claims.ledger import ClaimLedger
from appliance.fleet.claims.own_claims import OwnClaims
from appliance.fleet.owner import command_claims
from appliance.fleet.owner.command_claims import CommandClaims
from appliance.store.database import Store
from appliance.store.queries import fleet_claims
from appliance.store.queries.fleet_claims import CLAIM, RELEASE, Denial, DeviceClaim
from tests.support.fleet.bus import Bus
from tests.support.fleet.claims_kept import FLEET_KEY, RecordsInMemory
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

AMS, LIS = "nod_" + "2" * 24, "nod_" + "3" * 24
ALICE, KEY = "acc_1", b"\x01" * 32


class ServerOfCommands:
    """A ledger in memory, an exit whose commands note things in `store`, and another exit."""

    def __init__(self, store: Store) -> None:
        self.store, self.bus, self.clock, self.names = store, Bus(), VirtualClock(), RecordsInMemory()
        self.lis = self._claims(LIS)
        self.served = CommandClaims(store, self._claims(AMS), self.clock)

    def _claims(self, node: str) -> OwnClaims:
        return OwnClaims(self.bus.node(node), node, FLEET_KEY, self.clock, keys=list, names=list)

    async def note(self, operation: str, wish: DeviceClaim) -> int:
        async with self.store.write() as db:
            number = await fleet_claims.ask(db, operation, wish, self.clock.now().wall_ms)
        assert number is not None
        return number

    async def asked(self, wish: DeviceClaim) -> Denial | None:
        number = await self.note(CLAIM, wish)
        await self.served.look()
        return await self.outcome(number)

    async def outcome(self, number: int) -> Denial | None:
        async with self.store.read() as db:
            answered, denial = await fleet_claims.denial(db, number)
        assert answered
        return denial

    async def left(self) -> int:
        async with self.store.read() as db:
            return len(await fleet_claims.asked(db, 10))

    @property
    def phone_is_free(self) -> bool:
        return record_of_name(ALICE, device_name.key("phone")) not in self.names.known


def on_server(folder: Path, body: Callable[[ServerOfCommands], Awaitable[None]]) -> None:
    async def nowhere(_id: str) -> None: ...

    @asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        store = await Store.open(folder / "appliance.db")
        try:
            yield store
        finally:
            await store.close()

    async def story() -> None:
        async with opened() as store:
            server = ServerOfCommands(store)
            await ClaimLedger(RecordsInMemory(), server.names, server.clock, nowhere).listen(server.bus.hub())
            await body(server)

    asyncio.run(story())


def test_a_claim_is_granted_or_says_why_not(tmp_path: Path) -> None:
    """Two that are refused alike are each told; of one whose key is refused the name is free."""

    async def body(s: ServerOfCommands) -> None:
        await s.lis.claim_name(ALICE, "tablet", "op0")
        await s.lis.claim_key(KEY, ALICE, "op0", device=True)
        numbers = [await s.note(CLAIM, DeviceClaim(ALICE, op, "tablet")) for op in ("op1", "op2")]
        await s.served.look()
        assert [await s.outcome(number) for number in numbers] == [Denial.NAME_TAKEN] * 2
        assert await s.asked(DeviceClaim(ALICE, "op3", "phone", KEY)) is Denial.KEY_IN_USE
        assert await s.asked(DeviceClaim("acc_2", "op4", "phone", KEY)) is Denial.KEY_OF_ANOTHER
        assert s.phone_is_free
        assert await s.asked(DeviceClaim(ALICE, "op5", "phone", b"\x02" * 32)) is None
        assert not s.phone_is_free

    on_server(tmp_path, body)


def test_cut_off_a_command_is_told_and_what_is_given_up_is_kept(tmp_path: Path) -> None:
    """It is given up when the hub answers, before what is claimed then; a command that waits no more claims nothing."""

    async def body(s: ServerOfCommands) -> None:
        assert await s.asked(DeviceClaim(ALICE, "op1", "phone")) is None
        s.bus.cut(AMS)
        assert await s.asked(DeviceClaim(ALICE, "op2", "laptop")) is Denial.UNANSWERED
        await s.note(RELEASE, DeviceClaim(ALICE, name="phone"))
        await s.served.look()
        assert await s.left() == 1
        s.bus.heal(AMS)
        await s.served.look()  # too soon after the last try
        assert not s.phone_is_free
        assert await s.asked(DeviceClaim(ALICE, "op3", "phone")) is None
        assert not s.phone_is_free
        await s.note(RELEASE, DeviceClaim(ALICE, "op1", "phone"))  # of another claim
        await s.note(RELEASE, DeviceClaim(ALICE, "op3", "phone"))
        s.clock.advance(command_claims.RELEASE_MS / 1000)
        await s.served.look()
        assert s.phone_is_free
        number = await s.note(CLAIM, DeviceClaim(ALICE, "op4", "phone"))
        s.clock.advance(60)
        await s.served.look()
        assert await s.outcome(number) is Denial.UNANSWERED
        assert s.phone_is_free
        assert await s.left() == 0

    on_server(tmp_path, body)
