"""Each member tells where it would be dialled as a hub, and a hub stores it of those that others dial."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from appliance.config.load import parse_settings
from appliance.domain.errors import HostError
from appliance.domain.fleet_member import FleetMember
from appliance.fleet.accounts.ledger import SyncLedger
from appliance.fleet.accounts.replica import Replica
from appliance.fleet.joining.told_dialled import ToldDialled
from appliance.fleet.membership.own_dialled import OwnDialled, dialled_here
from appliance.fleet.membership.roster import Roster
from appliance.store.queries import fleet_members
from tests.support.fleet.followers import AMS, FRA, LIS, followed, turn

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.fleet.accounts.sync_messages import SyncRequest
    from appliance.fleet.membership.members import Role
    from tests.support.fleet.followers import Followed


def member(node_id: str, role: Role, dialled: str = "") -> FleetMember:
    key = node_id[4:36].encode() + bytes(8)
    return FleetMember(node_id, node_id[4:8], "x", role, f"U{node_id[4]}", key, 1, None, dialled)


async def told_of(one: Followed, *members: FleetMember) -> ToldDialled:
    """The hub's, which is told with what is asked of its ledger."""
    async with one.store.write() as db:
        for each in members:
            await fleet_members.put(db, each)
    roster = Roster(one.store)
    await roster.load()
    found = ToldDialled(one.store, roster)

    async def told(sender: str, asked: SyncRequest) -> tuple[str, bytes]:
        await found.note(sender, asked.dialled)
        return "", b""

    one.bus.subscriptions.clear()
    one.ledger = SyncLedger(one.store, 1, one.named, authorities=told)
    await one.ledger.listen(one.bus.hub())
    return found


async def dialled(one: Followed) -> dict[str, str]:
    async with one.store.read() as db:
        return {each.id: each.dialled for each in await fleet_members.everyone(db)}


def test_what_a_standby_tells_is_stored_and_what_a_spoke_tells_is_only_known(tmp_path: Path) -> None:
    """A standby whose address has changed is dialled at the new one by all; so is the hub."""

    async def story() -> None:
        async with followed(tmp_path, AMS, LIS) as (one, (standby, spoke)):
            addresses = {AMS: "ams.example.net:7422", LIS: "[2001:db8::1]:7422"}
            for node, follower in ((AMS, standby), (LIS, spoke)):
                link = one.bus.node(node)
                follower.replica = Replica(
                    *(link, follower.store, node, follower.clock, follower.reactions),
                    dialled=lambda node=node: addresses[node],  # type: ignore[misc]
                )
                await follower.replica.load()
            told = await told_of(one, member(FRA, "hub", "a:1"), member(AMS, "standby"), member(LIS, "spoke"))
            await turn(one, [standby, spoke])
            assert told.told == addresses
            assert await dialled(one) == {FRA: "a:1", AMS: addresses[AMS], LIS: ""}
            addresses |= {AMS: "192.0.2.2:7000", LIS: ""}
            for each in (standby, spoke):  # as each asks now and then
                assert await each.replica.follow()
            await told.note(FRA, "fra.example.net:7422")
            assert await dialled(one) == {FRA: "fra.example.net:7422", AMS: "192.0.2.2:7000", LIS: ""}
            await turn(one, [spoke])
            async with spoke.store.read() as db:
                known = {each.id: each.dialled for each in await fleet_members.everyone(db)}
            assert known == await dialled(one)
            assert told.told[LIS] == ""

    asyncio.run(story())


@pytest.mark.parametrize(
    "text", ["ams.example.net", "a:0", "a:65536", 'a:1"\nx', "a b:1", ":1", "[::1:7422", "a:\u0661"]
)
def test_what_is_no_address_is_not_taken(tmp_path: Path, text: str) -> None:
    """It would be in files of nats-server. Nor is that of a host that is no member."""

    async def story() -> None:
        async with followed(tmp_path) as (one, _):
            told = await told_of(one, member(AMS, "standby", "b:1"))
            await told.note(AMS, text)
            await told.note(AMS, None)
            await told.note(LIS, "c:1")
            assert told.told == {}
            await told.note(AMS, "")
            assert (told.told, await dialled(one)) == ({AMS: ""}, {AMS: "b:1"})

    asyncio.run(story())


def test_a_host_that_cannot_be_a_hub_tells_so(tmp_path: Path) -> None:
    """It lacks nats-server, or an address that others can dial; the program is looked for until it is found."""
    settings = parse_settings('[node]\npublic_ip = "192.0.2.7"\n[fleet]\nlisten = "0.0.0.0:7000"', {}, "exit")
    looks = list[str]()

    def find() -> None:
        looks.append("")
        if len(looks) == 1:
            raise HostError("nats-server is not installed")

    async def story() -> None:
        own = OwnDialled(lambda: dialled_here(settings, tmp_path / "none")[0], find)
        for expected in ("", "192.0.2.7:7000", "192.0.2.7:7000"):
            await own.look()
            assert own.now == expected
        assert len(looks) == 2
        alone = parse_settings('[fleet]\nlisten = "127.0.0.1:7000"', {}, "exit")
        other = OwnDialled(lambda: dialled_here(alone, tmp_path / "none")[0], find)
        await other.look()
        assert other.now == ""

    asyncio.run(story())
