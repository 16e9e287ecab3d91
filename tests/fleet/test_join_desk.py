"""A hub admits hosts: by its store, over a link; an invitation is good for one host."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from appliance.domain.clock import HostClock
from appliance.domain.entities import Account
from appliance.domain.errors import CutOff, JoinRefused
from appliance.domain.fleet_member import FleetMember
from appliance.domain.tiers import Tier
from appliance.fleet.hub.config import join_subject
from appliance.fleet.joining import joining
from appliance.fleet.joining.desk import JoinDesk
from appliance.fleet.joining.messages import JoinRequest
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.identity import FleetFolder, HubAddress, HubSecrets, Membership, new_keys
from appliance.fleet.presence.beats import SPOKEN
from appliance.store.database import Store
from appliance.store.queries import accounts, fleet_invites, fleet_members, fleet_state, tokens
from appliance.store.queries.account_offers import OfferedAccount, OfferedToken
from appliance.store.queries.fleet_invites import Invite
from tests.support.fleet.bus import Bus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from appliance.fleet.membership.members import Role

HUB = "nod_" + "f" * 24
HOUR_MS = 3_600_000
OF_HUB = HubSecrets("hub seed", "system seed", "the CA's key")
MEMBERSHIP = Membership("flt_1", "fra1", "hub", (HubAddress("192.0.2.1:7422", "f.hub.internal"),), "PEM", b"k" * 32)


def now() -> int:
    return HostClock().now().wall_ms


def request(name: str = "ams1") -> JoinRequest:
    """Of a new host without accounts."""
    keys = new_keys()
    return JoinRequest(keys.node_id, name, "ams", keys.nkey, keys.public_xkey, SPOKEN, now())


@dataclasses.dataclass
class Desk:
    """A hub with one member, itself. `applied`: the NKEYs that its server lets in, after each time."""

    store: Store
    bus: Bus
    applied: list[set[str]] = dataclasses.field(default_factory=list)
    fails: int = 0

    async def apply(self) -> None:
        if self.fails:
            self.fails -= 1
            raise CutOff("nats-server is away")
        self.applied.append({each.nkey for each in await self.members()})

    async def members(self) -> list[FleetMember]:
        async with self.store.read() as db:
            return await fleet_members.present(db)

    async def invite(self, lasts_ms: int = HOUR_MS, role: Role = "spoke") -> str:
        key = NKey.new().public
        async with self.store.write() as db:
            await fleet_invites.add(db, Invite(key, role, now(), now() + lasts_ms))
        return key

    async def ask(self, invitation: str, asked: JoinRequest) -> str:
        """Why it was refused; empty where it was not."""
        try:
            await joining.ask(self.bus.hub("joining"), join_subject(invitation), asked)
        except JoinRefused as refused:
            return str(refused)
        return ""


@asynccontextmanager
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = await Store.open(tmp_path / "store.sqlite")
    try:
        async with store.write() as db:
            await fleet_state.enter(db, "hub", HUB, 3)
            await fleet_members.put(db, FleetMember(HUB, "fra1", "fra", "hub", NKey.new().public, bytes(32), 1))
        made = Desk(store, Bus())
        await JoinDesk(store, MEMBERSHIP, made.apply, HostClock(), OF_HUB).listen(made.bus.hub())
        yield made
        await made.bus.idle()
        assert made.bus.failures == []
    finally:
        await store.close()


def test_a_host_with_an_invitation_becomes_a_member(tmp_path: Path) -> None:
    """It is let in before it is answered, and answered with all that a member needs."""

    async def scene() -> None:
        async with desk(tmp_path) as hub:
            asked, invitation = request(), await hub.invite()
            answer = await joining.ask(hub.bus.hub("joining"), join_subject(invitation), asked)
            assert hub.applied[-1] >= {asked.nkey}
            assert (answer.fleet_id, answer.gen, answer.role) == ("flt_1", 3, "spoke")
            assert (answer.hubs, answer.ca, answer.fleet_key) == (MEMBERSHIP.hubs, "PEM", b"k" * 32)
            assert [each.name for each in answer.members] == ["fra1", "ams1"]
            stored = (await hub.members())[1]
            assert (stored.id, stored.nkey, stored.xkey) == (asked.node_id, asked.nkey, asked.xkey)

    asyncio.run(scene())


def test_a_host_that_is_invited_as_a_hub_stands_by(tmp_path: Path) -> None:
    """It has a hub's secrets then, which are in no clear text of the answer, and dials the hub alone; there is one."""

    async def scene() -> None:
        async with desk(tmp_path) as hub:
            folder, store = FleetFolder(tmp_path / "ams"), await Store.open(tmp_path / "ams.sqlite")
            folder.path.parent.mkdir()
            keys, invitation = folder.keys(), await hub.invite(role="hub")
            asked = msgspec.structs.replace(
                request(), node_id=keys.node_id, nkey=keys.nkey, xkey=keys.public_xkey, dialled="192.0.2.2:7422"
            )
            assert "set fleet.advertise here" in await hub.ask(invitation, msgspec.structs.replace(asked, dialled="?"))
            answer = await joining.ask(hub.bus.hub("joining"), join_subject(invitation), asked)
            assert b"seed" not in msgspec.json.encode(answer)
            try:
                await joining.become_member(store, folder, asked, answer)
                async with store.read() as db:
                    row = await fleet_state.read(db)
            finally:
                await store.close()
            assert row is not None
            membership = folder.membership()
            assert membership is not None
            assert (row.role, membership.role, membership.hubs) == ("standby", "standby", MEMBERSHIP.hubs)
            assert folder.hub_secrets() == OF_HUB
            assert [(each.role, each.dialled) for each in await hub.members()][1:] == [("standby", asked.dialled)]
            assert "ams1 is the fleet's standby already" in await hub.ask(
                await hub.invite(role="hub"), msgspec.structs.replace(request("lon1"), dialled="192.0.2.3:7422")
            )
            later = await joining.ask(hub.bus.hub("joining"), join_subject(await hub.invite()), request("lon1"))
            assert [each.role for each in later.members] == ["hub", "standby", "spoke"]
            assert b'"role":"standby"' not in msgspec.json.encode(later)  # older versions understand none of it

    asyncio.run(scene())


def test_the_same_host_that_asks_again_is_answered_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer was lost, or nats-server was away when it was let in; another host is told that it is too late."""
    monkeypatch.setattr(joining, "ANSWER_S", 0.2)
    monkeypatch.setattr(joining, "PAUSE_S", 0.01)

    async def scene() -> None:
        async with desk(tmp_path) as hub:
            asked, invitation = request(), await hub.invite()
            hub.bus.lose_answers("wga.join.>", times=2)
            assert await hub.ask(invitation, asked) == ""
            assert await hub.ask(invitation, asked) == ""
            assert (await hub.ask(invitation, request("lon1"))).startswith("this join token was used already (by ams")
            assert [each.name for each in await hub.members()] == ["fra1", "ams1"]
            other, second = request("par1"), await hub.invite()
            hub.fails = 1
            assert (await hub.ask(second, other)).startswith(
                "the hub cannot take a host in now (nats-server is away): run"
            )
            assert await hub.ask(second, other) == ""
            assert hub.applied[-1] >= {other.nkey}

    asyncio.run(scene())


def test_of_two_hosts_at_once_one_joins(tmp_path: Path) -> None:
    """By one invitation; or by two, under one name."""

    async def scene() -> None:
        async with desk(tmp_path) as hub:
            invitation = await hub.invite()
            one, other = request("ams1"), request("ams2")
            said = await asyncio.gather(hub.ask(invitation, one), hub.ask(invitation, other))
            assert sorted(map(bool, said)) == [False, True]
            same = [request("par1"), request("par1")]
            tokens = [await hub.invite(), await hub.invite()]
            said = await asyncio.gather(*(hub.ask(*each) for each in zip(tokens, same, strict=True)))
            assert sorted(text[:36] for text in said) == ["", "the fleet has a host called par1 alr"]

    asyncio.run(scene())


def test_a_refused_host_leaves_its_invitation_as_good_as_before(tmp_path: Path) -> None:
    """What is in its way can be set right, and the same token used."""

    async def scene() -> None:
        async with desk(tmp_path) as hub:
            invitation = await hub.invite()
            asked = request("fra1")
            assert (await hub.ask(invitation, asked)).startswith("the fleet has a host called fra1 already")
            assert (await hub.ask(invitation, msgspec.structs.replace(asked, t=5))).startswith("this host's clock is")
            assert (await hub.ask(await hub.invite(lasts_ms=0), asked)).startswith("this join token expired at")
            assert (await hub.ask(NKey.new().public, asked)).startswith("the hub does not know this join token")
            assert hub.applied == []
            assert await hub.ask(invitation, msgspec.structs.replace(asked, name="fra2")) == ""

    asyncio.run(scene())


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"node_id": 1}', b"\xff", b"[" * 100_000])
def test_what_is_no_request_is_answered_in_words(tmp_path: Path, data: bytes) -> None:
    """By a version that asks otherwise, or by anybody."""

    async def scene() -> None:
        async with desk(tmp_path) as hub:
            answer = await hub.bus.hub("joining").request(join_subject(await hub.invite()), data, 10)
            assert b"the hub does not understand this host: bring both to the same version" in answer

    asyncio.run(scene())


def test_a_hub_without_its_appliance_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nats-server is there, and nobody answers."""
    monkeypatch.setattr(joining, "PAUSE_S", 0.01)

    async def scene() -> str:
        made = Desk(await Store.open(tmp_path / "store.sqlite"), Bus())
        try:
            return await made.ask(NKey.new().public, request())
        finally:
            await made.store.close()

    assert asyncio.run(scene()).startswith("the hub's nats-server answers, its wg-appliance does not")


def test_accounts_of_a_host_that_joins(tmp_path: Path) -> None:
    """One that the fleet has too is dropped if it was never used; used, it is in the way, until it has another name."""

    async def scene() -> None:
        async with desk(tmp_path) as hub:
            async with hub.store.write() as db:
                await accounts.insert(db, Account("acc_1", "owner", Tier.PAID, False, 1))
                await accounts.insert(db, Account("acc_2", "ada", Tier.PAID, False, 1))
            invitation = await hub.invite()
            asked = msgspec.structs.replace(request(), unused=("owner", "eve"), accounts=("ada", "bob"))
            with pytest.raises(JoinRefused, match="the fleet has accounts of these names too") as refused:
                await joining.ask(hub.bus.hub("joining"), join_subject(invitation), asked)
            assert refused.value.names == ("ada",)
            renamed = msgspec.structs.replace(asked, accounts=("ada-ams", "bob"))
            answer = await joining.ask(hub.bus.hub("joining"), join_subject(invitation), renamed)
            assert answer.taken == ("owner",)

    asyncio.run(scene())


def test_accounts_whose_names_are_free_become_the_fleets(tmp_path: Path) -> None:
    """With their tokens; asked again, as the answer was lost, they are there once, and are not called dropped."""

    async def scene() -> None:
        async with desk(tmp_path) as hub:
            async with hub.store.write() as db:
                await accounts.insert(db, Account("acc_1", "owner", Tier.PAID, False, 1))
            token = OfferedToken("tok_" + "1" * 16, bytes(32), "laptop", 1, None)
            offer = tuple(
                OfferedAccount(f"acc_{number:024x}", name, "free", False, 1, name == "bob", (token,) * (name == "bob"))
                for number, name in enumerate(("owner", "eve", "bob"))
            )
            asked = msgspec.structs.replace(request(), unused=("owner", "eve"), accounts=("bob",), offer=offer)
            invitation = await hub.invite()
            for _ in range(2):
                answer = await joining.ask(hub.bus.hub("joining"), join_subject(invitation), asked)
                assert answer.taken == ("owner",)
            async with hub.store.read() as db:
                assert {each.name: each.id for each in await accounts.everyone(db)} == {
                    "owner": "acc_1",
                    "eve": offer[1].id,
                    "bob": offer[2].id,
                }
            again = msgspec.structs.replace(asked, node_id="nod_" + "e" * 24, name="ams2", nkey=NKey.new().public)
            answer = await joining.ask(hub.bus.hub("joining"), join_subject(await hub.invite()), again)
            assert answer.taken == ("owner",)
            async with hub.store.read() as db:
                assert [each.id for each in await tokens.of_account(db, offer[2].id)] == [token.id]

    asyncio.run(scene())


def test_an_account_is_the_same_by_its_id(tmp_path: Path) -> None:
    """A host that comes back has no name in its way, though the fleet has deleted its account and made another one of
    that name; nor is one dropped, though it was not used here."""

    async def scene() -> None:
        async with desk(tmp_path) as hub:
            async with hub.store.write() as db:
                for id_, name in (("acc_a", "ada"), ("acc_o", "owner")):
                    await accounts.insert(db, Account(id_, name, Tier.PAID, False, 1))
                    await accounts.delete(db, id_, 2)
                    await accounts.insert(db, Account(f"{id_}2", name, Tier.PAID, False, 3))
                await accounts.insert(db, Account("acc_b", "bob", Tier.PAID, False, 1))
            made_here = OfferedToken("tok_" + "1" * 16, bytes(32), "", 1, None)
            offer = tuple(
                OfferedAccount(id_, name, "free", False, 1, used, (made_here,))
                for id_, name, used in (("acc_a", "ada", True), ("acc_o", "owner", False), ("acc_b", "bob", True))
            )
            asked = msgspec.structs.replace(request(), unused=("owner",), accounts=("ada", "bob"), offer=offer)
            answer = await joining.ask(hub.bus.hub("joining"), join_subject(await hub.invite()), asked)
            assert answer.taken == ()
            async with hub.store.read() as db:
                assert {each.id for each in await accounts.everyone(db)} == {"acc_a2", "acc_o2", "acc_b"}
                assert await tokens.of_account(db, "acc_b") == []

    asyncio.run(scene())
