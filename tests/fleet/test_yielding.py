"""A host becomes in its fleet what its store says; a hub asks the other one first, over the real nats-server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from appliance.domain.clock import HostClock
from appliance.domain.entities import Account
from appliance.domain.fleet_member import FleetMember
from appliance.domain.tiers import Tier
from appliance.fleet.accounts import generations
from appliance.fleet.accounts.ledger import SyncLedger
from appliance.fleet.hub.certificates import make_authority
from appliance.fleet.hub.files import HubFiles, hub_place
from appliance.fleet.hub.hub_serving import HubServing
from appliance.fleet.membership.hub_addresses import address_of
from appliance.fleet.membership.identity import FleetFolder, Membership
from appliance.ops.install.layout import Layout
from appliance.server.fleet_role import FleetRole
from appliance.store.database import Store
from appliance.store.queries import accounts, fleet_changes, fleet_conflicts, fleet_members, fleet_state
from tests.support.fleet.hub_appliance import hub_appliance, link
from tests.support.fleet.real_hub import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from appliance.fleet.membership.members import Role

AMS = "nod_" + "a" * 24


@dataclass
class OldHub:
    """A hub of the first generation, which does not run."""

    folder: FleetFolder
    store: Store
    membership: Membership

    def member(self, role: Role) -> FleetMember:
        keys, hub = self.folder.keys(), self.membership.hubs[0]
        return FleetMember(keys.node_id, "lon1", "lon", role, keys.nkey, keys.public_xkey, 1, dialled=hub.address)

    async def settled(self) -> tuple[str, str, tuple[str, ...]]:
        """What it is now: by its store and by its file, and whom it dials."""
        role = FleetRole(self.store, self.folder, HostClock())
        was = self.folder.membership()
        assert was is not None
        membership, row = await role.settle(was)
        assert membership == self.folder.membership()
        return row.role, membership.role, tuple(each.address for each in membership.hubs)


def authority() -> str:
    return make_authority("flt_1", HostClock().now().wall_ms).certificate


@asynccontextmanager
async def old_hub(folder: Path, ca: str, *others: FleetMember) -> AsyncIterator[OldHub]:
    store, of_fleet = await Store.open(folder / "store.sqlite"), FleetFolder(folder)
    own = address_of(of_fleet.keys().node_id, f"127.0.0.1:{free_port()}")
    made = OldHub(of_fleet, store, Membership("flt_1", "lon1", "hub", (own,), ca, b"k" * 32))
    of_fleet.save_membership(made.membership)
    try:
        async with store.write() as db:
            await fleet_state.enter(db, "hub", of_fleet.keys().node_id, 1)
            await fleet_changes.record(db)
            for each in (made.member("hub"), *others):
                await fleet_members.put(db, each)
        yield made
    finally:
        await store.close()


@pytest.mark.parametrize("role", ["standby", "spoke"])
def test_a_hub_that_was_replaced_yields_before_it_opens_its_port(tmp_path: Path, role: Role) -> None:
    """Its server's files are gone, so that none starts; what it had changed alone is kept. It becomes what the new hub
    says that it is."""

    async def story() -> None:
        (tmp_path / "old").mkdir()
        (tmp_path / "new").mkdir()
        async with hub_appliance(tmp_path / "new") as new:
            keys, of_hub = FleetFolder(tmp_path / "new").keys(), FleetFolder(tmp_path / "new").hub_secrets()
            assert of_hub is not None
            at = f"127.0.0.1:{new.port}"
            successor = FleetMember(keys.node_id, "ams1", "ams", "standby", keys.nkey, keys.public_xkey, 2, dialled=at)
            async with old_hub(tmp_path / "old", new.membership.ca, successor) as old:
                async with old.store.read() as db:
                    base = await fleet_changes.head(db)
                async with old.store.write() as db:
                    await accounts.insert(db, Account("acc_1", "unseen", Tier.FREE, False, 1))
                async with new.store.write() as db:
                    await fleet_members.put(db, successor)
                    await fleet_members.put(db, old.member(role))
                await new.upkeep.apply()
                answering = link(new.membership, of_hub.hub_seed, "hub")
                answering.start()
                await answering.wait_connected(60)
                await SyncLedger(new.store, 2, base=base).listen(answering)
                files = HubFiles(hub_place(tmp_path / "old", Layout(tmp_path)))
                files.create_folder()
                files.put_back("# a configuration")
                try:
                    assert await old.settled() == (role, role, (at,))
                finally:
                    await answering.close()
                await HubServing(old.folder, old.store, HostClock(), "127.0.0.1:0").look()
                assert files.config() is None
                async with old.store.read() as db:
                    assert [each.id for each in await fleet_conflicts.everything(db)] == ["acc_1"]
                    assert not await fleet_changes.is_recorded(db)

    asyncio.run(story())


def test_a_hub_stays_one_while_no_newer_one_is_reached(tmp_path: Path) -> None:
    """Its own address is the first that it knows."""

    async def story() -> None:
        (tmp_path / "old").mkdir()
        away = f"127.0.0.1:{free_port()}"
        standby = FleetMember(AMS, "ams1", "ams", "standby", "UAMS", bytes(32), 2, dialled=away)
        async with old_hub(tmp_path / "old", authority(), standby) as old:
            assert await old.settled() == ("hub", "hub", (old.membership.hubs[0].address, away))

    asyncio.run(story())


def test_a_promotion_that_was_killed_is_finished_by_the_server(tmp_path: Path) -> None:
    """The command had changed the store, and not yet the file."""

    async def story() -> None:
        (tmp_path / "old").mkdir()
        async with old_hub(tmp_path / "old", authority()) as host:
            async with host.store.write() as db:
                await fleet_changes.forget(db)
                await fleet_state.stand_by(db, 1)
                await fleet_members.put(db, host.member("standby"))
            assert (await host.settled())[:2] == ("standby", "standby")
            async with host.store.write() as db:
                assert await generations.begin(db, host.membership.hubs[0].address, 9) == 2
            assert (await host.settled())[:2] == ("hub", "hub")

    asyncio.run(story())
