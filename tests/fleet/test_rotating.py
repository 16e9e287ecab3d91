"""The fleet's authority is replaced over the real nats-server: no connection is lost, and none refused that may be."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from appliance.domain.clock import HostClock
from appliance.domain.errors import ConnectFailed
from appliance.fleet.accounts.ledger import SyncLedger
from appliance.fleet.accounts.replica import Replica
from appliance.fleet.hub import authorities
from appliance.fleet.hub.certificates import make_authority, split
from appliance.fleet.hub.rotation import HubRotation, RotationSteps
from appliance.fleet.joining import joining
from appliance.fleet.joining import token as join_token
from appliance.fleet.joining.followed_authorities import FollowedAuthorities
from appliance.fleet.link.connect_failure import Hindrance
from appliance.fleet.link.hub_connection import HubConnection
from appliance.fleet.link.link import LinkState, NatsLink
from appliance.fleet.membership.identity import FleetFolder, Membership
from appliance.fleet.membership.roster import Roster
from appliance.server.fleet_role import user_of
from appliance.store.database import Store
from tests.support.fleet.followers import Follower
from tests.support.fleet.hub_appliance import hub_appliance
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.fleet.membership.identity import HubSecrets
    from tests.support.fleet.hub_appliance import HubAppliance


def now() -> int:
    return HostClock().now().wall_ms


@dataclass
class Joined:
    """A host that has joined, and follows."""

    folder: FleetFolder
    store: Store
    membership: Membership

    async def start(self, stack: AsyncExitStack) -> None:
        self.states: list[LinkState] = []
        self.link = NatsLink(
            lambda: self.membership.hubs, user_of(self.membership, self.folder.keys()), HostClock(), self.states.append
        )
        self.link.start()
        stack.push_async_callback(self.link.close)
        await self.link.wait_connected(60)
        keys, notes = self.folder.keys(), Follower(self.folder.path, self.store, None, VirtualClock())  # type: ignore[arg-type]
        followed = FollowedAuthorities(self.folder, keys.xkey, lambda: self.membership, self._trust)
        self.replica = Replica(self.link, self.store, keys.node_id, HostClock(), notes.reactions, followed)
        await self.replica.load()

    def _trust(self, membership: Membership) -> None:
        self.membership = membership
        self.link.trust(membership.ca)

    async def dials(self, ca: str = "") -> None:
        """A connection of its own, by what it trusts or by this. Raises ConnectFailed."""
        trusting = replace(self.membership, ca=ca or self.membership.ca)
        hub = self.membership.hubs[0]
        await (await HubConnection.dial(user_of(trusting, self.folder.keys()), hub, HostClock())).close()


async def joins(path: Path, name: str, text: str, stack: AsyncExitStack) -> Joined:
    folder, store = FleetFolder(path), await Store.open(path / "store.sqlite")
    stack.push_async_callback(store.close)
    async with store.read() as db:
        asked = await joining.request_of(db, folder.keys(), name, "ams", now())
    answer = await joining.join(join_token.decode(text, now()), folder.keys(), asked, HostClock())
    await joining.become_member(store, folder, asked, answer)
    membership = folder.membership()
    assert membership is not None
    return Joined(folder, store, membership)


async def rotation_of(
    hub: HubAppliance, state_dir: Path, clock: VirtualClock
) -> tuple[HubRotation, FleetFolder, Roster]:
    folder, roster = FleetFolder(state_dir), Roster(hub.store)
    secrets = folder.hub_secrets()
    assert secrets is not None

    def trust(membership: Membership, of_hub: HubSecrets) -> None:
        hub.membership = membership
        hub.upkeep.trust(membership, of_hub)
        hub.desk.trust(membership, of_hub)

    steps = RotationSteps(hub.upkeep.sign, trust)
    rotation = HubRotation(folder, hub.store, roster, clock, secrets, steps)
    await SyncLedger(hub.store, 1, authorities=rotation.told).listen(hub.own)
    await rotation.look()
    return rotation, folder, roster


def test_members_go_on_and_hosts_join_while_the_authority_is_replaced(tmp_path: Path) -> None:
    """Of before, with a token of before, and after; the old authority alone is refused in the end, in words."""

    async def scene() -> None:
        clock = VirtualClock(now())
        async with AsyncExitStack() as stack:
            hub = await stack.enter_async_context(hub_appliance(tmp_path / "fra"))
            rotation, folder, roster = await rotation_of(hub, tmp_path / "fra", clock)
            old = hub.membership.ca
            ams = await joins(tmp_path / "ams", "ams1", await hub.invite(), stack)
            await roster.load()
            await ams.start(stack)
            held = await hub.invite()

            secrets = folder.hub_secrets()
            assert secrets is not None
            new = make_authority(hub.membership.fleet_id, now())
            folder.save_hub_secrets(authorities.begin(secrets, new, now()))
            await rotation.look()
            assert await ams.replica.follow()
            assert await ams.replica.follow()
            assert split(ams.membership.ca) == (old, new.certificate)
            await rotation.look()
            await ams.dials(old)  # which signs still, as a token is held that knows it alone

            lis = await joins(tmp_path / "lis", "lis1", held, stack)
            await roster.load()
            await rotation.look()
            await ams.dials(old)  # until that one has said what it trusts
            await lis.start(stack)
            assert await lis.replica.follow()
            await rotation.look()
            await ams.dials(new.certificate)
            with pytest.raises(ConnectFailed, match="was away while the fleet's authority was replaced") as refused:
                await ams.dials(old)
            assert refused.value.reason == Hindrance.WRONG_CA

            clock.advance(authorities.BOTH_TRUSTED_MS // 1000 + 60)
            await rotation.look()
            for each in (ams, lis):
                assert await each.replica.follow()
                assert each.membership.ca == new.certificate
                await each.dials()
                assert [state.connected for state in each.states] == [True], "the connection is the first one still"
            after = await joins(tmp_path / "nrt", "nrt1", await hub.invite(), stack)
            assert after.membership.ca == new.certificate
            assert hub.server.starts == 1

    for name in ("fra", "ams", "lis", "nrt"):
        (tmp_path / name).mkdir()
    asyncio.run(scene())
