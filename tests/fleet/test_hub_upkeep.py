"""A hub's server goes by the store: the newest state of it, whoever asks for that, and in whatever order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from appliance.domain.clock import HostClock
from appliance.domain.errors import CutOff
from appliance.domain.fleet_member import FleetMember
from appliance.fleet.hub.config import ServerFiles
from appliance.fleet.hub.upkeep import OUT_MS, TOLD_MS, HubFacts, HubUpkeep
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.identity import HubAddress, HubSecrets, Membership
from appliance.store.database import Store
from appliance.store.queries import fleet_invites, fleet_members
from appliance.store.queries.fleet_invites import Invite
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from appliance.fleet.hub.config import HubSettings
    from appliance.fleet.hub.control import MadeBy

MEMBERSHIP = Membership("flt_1", "fra1", "hub", (HubAddress("192.0.2.1:7422", "f.hub.internal"),), "PEM", b"k" * 32)
SECRETS = HubSecrets(NKey.new().seed, NKey.new().seed, "KEY")
FACTS = HubFacts(f"nod_{1:024x}", MEMBERSHIP, SECRETS, ServerFiles("c", "k", "streams"), "127.0.0.1:1")


def now() -> int:
    return HostClock().now().wall_ms


class Control:
    """Notes what it is to apply; takes a while for it, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.applied: list[HubSettings] = []
        self.renewals = 0
        self.fails = 0

    async def apply(self, settings: HubSettings, _made: MadeBy) -> None:
        await asyncio.sleep(0.01)
        if self.fails:
            self.fails -= 1
            raise CutOff("nats-server is away")
        self.applied.append(settings)

    async def renew_leaf(self, _settings: HubSettings, _made: MadeBy) -> bool:
        self.renewals += 1
        return False


def member(number: int) -> FleetMember:
    return FleetMember(f"nod_{number:024x}", f"exit{number}", "ams", "spoke", NKey.new().public, bytes(32), number)


async def on_a_store(path: Path) -> tuple[Store, Control, HubUpkeep]:
    store, control = await Store.open(path / "store.sqlite"), Control()
    return store, control, HubUpkeep(store, FACTS, control, HostClock())  # type: ignore[arg-type]


def test_many_at_once_end_with_the_newest(tmp_path: Path) -> None:
    """Who has just joined is let in when `apply` returns, whatever a look beside it had read before."""

    async def scene() -> None:
        store, control, upkeep = await on_a_store(tmp_path)
        try:

            async def joins(number: int) -> None:
                async with store.write() as db:
                    await fleet_members.put(db, joined := member(number))
                await upkeep.apply()
                assert joined in control.applied[-1].members

            await asyncio.gather(*(joins(number) for number in range(20)), *(upkeep.look() for _ in range(20)))
            assert len(control.applied[-1].members) == 20
            sizes = [len(each.members) for each in control.applied]
            assert sizes == sorted(sizes)
        finally:
            await store.close()

    asyncio.run(scene())


def test_what_is_in_force_is_not_applied_again_and_what_failed_is(tmp_path: Path) -> None:
    """A fault is there until the next look that has none."""

    async def scene() -> None:
        store, control, upkeep = await on_a_store(tmp_path)
        try:
            control.fails = 1
            await upkeep.look()
            assert upkeep.fault == "nats-server is away"
            for _ in range(3):
                await upkeep.look()
            assert upkeep.fault is None
            assert len(control.applied) == 1
            assert control.renewals == 1, "once an hour"
        finally:
            await store.close()

    asyncio.run(scene())


def test_an_expired_invitation_is_known_for_another_day(tmp_path: Path) -> None:
    """Its holder is told that it has expired; then it is gone from store and server."""

    async def scene() -> None:
        store, control, upkeep = await on_a_store(tmp_path)
        try:
            fresh, gone = NKey.new().public, NKey.new().public
            async with store.write() as db:
                await fleet_invites.add(db, Invite(fresh, "spoke", 1, now() - TOLD_MS // 2))
                await fleet_invites.add(db, Invite(gone, "spoke", 1, now() - TOLD_MS - 1))
            await upkeep.look()
            assert control.applied[-1].invitations == (fresh,)
            async with store.read() as db:
                assert [each.hash for each in await fleet_invites.everything(db)] == [fresh]
        finally:
            await store.close()

    asyncio.run(scene())


def test_a_member_that_floods_is_not_let_in_for_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The hub itself, and who is not let in at all, never; it is told once, with what to do."""

    async def scene() -> None:
        store, control, clock = await Store.open(tmp_path / "store.sqlite"), Control(), VirtualClock(now())
        upkeep = HubUpkeep(store, FACTS, control, clock)  # type: ignore[arg-type]
        thief, other, hub = member(1), member(2), msgspec.structs.replace(member(3), role="hub")
        try:
            async with store.write() as db:
                for each in (thief, other, hub):
                    await fleet_members.put(db, each)
            await upkeep.apply()
            for nkey in (thief.nkey, thief.nkey, hub.nkey, "UNKNOWN"):
                upkeep.put_out(nkey, "sends 5000 messages a second")
            await upkeep.apply()
            assert [each.id for each in control.applied[-1].members] == [other.id, hub.id]
            clock.advance(OUT_MS // 1000)
            await upkeep.apply()
            assert len(control.applied[-1].members) == 3
        finally:
            await store.close()

    asyncio.run(scene())
    assert [each.getMessage() for each in caplog.records] == [
        "exit1 sends 5000 messages a second, and is not let in for 10 minutes; if it is in other hands: "
        "wg-appliance fleet forget"
    ]


def test_it_is_known_by_which_hubs_the_server_goes(tmp_path: Path) -> None:
    """Once it has taken them over, and not while that fails."""

    async def scene() -> None:
        store, control, upkeep = await on_a_store(tmp_path)
        try:
            async with store.write() as db:
                for number, role in enumerate(("hub", "standby", "standby")):
                    of = msgspec.structs.replace(member(number), role=role, dialled=f"192.0.2.{number}:7422")
                    await fleet_members.put(db, msgspec.structs.replace(of, hub_since=5))
            control.fails = 1
            await upkeep.look()
            assert not upkeep.goes_by(5)
            await upkeep.look()
            assert upkeep.goes_by(5)
            assert not upkeep.goes_by(6)
        finally:
            await store.close()

    asyncio.run(scene())
