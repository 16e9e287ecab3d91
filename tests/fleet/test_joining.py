"""Two hosts become a fleet: founded, invited, joined, over the real nats-server; each failure is one line."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING

import msgspec
import pytest

from appliance.domain.clock import HostClock
from appliance.domain.entities import Account
from appliance.domain.errors import Conflict, ConnectFailed, FleetError, JoinRefused
from appliance.domain.tiers import Tier
from appliance.fleet.hub.config import invitation_inbox, join_subject, member_inbox
from appliance.fleet.hub.files import HubFiles, hub_place
from appliance.fleet.joining import founding, joining
from appliance.fleet.joining import token as join_token
from appliance.fleet.link.link import NatsLink, hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.identity import FleetFolder
from appliance.fleet.presence.offline import may_open
from appliance.ops.install.layout import Layout
from appliance.store.database import Store
from appliance.store.queries import accounts, fleet_members, fleet_state
from tests.support.fleet.hub_appliance import HOUR_MS, hub_appliance
from tests.support.fleet.nats_program import NATS_SERVER
from tests.support.fleet.real_hub import until

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.fleet.joining.messages import JoinAnswer
    from appliance.fleet.joining.token import JoinToken
    from appliance.fleet.membership.identity import Membership, NodeKeys

OWNER = Account("acc_1", "owner", Tier.PAID, False, 1)


def now() -> int:
    return HostClock().now().wall_ms


class Host:
    """A host that is to join: its state directory, with an account `owner` that it never used."""

    def __init__(self, state_dir: Path, name: str = "ams1") -> None:
        state_dir.mkdir()
        self.state_dir = state_dir
        self.name = name
        self.folder = FleetFolder(state_dir)

    @property
    def keys(self) -> NodeKeys:
        return self.folder.keys()

    async def join(self, text: str) -> tuple[str, ...]:
        """Returns the accounts that were dropped."""
        store = await Store.open(self.state_dir / "store.sqlite")
        try:
            async with store.write() as db:
                if await accounts.by_id(db, OWNER.id) is None:
                    await accounts.insert(db, OWNER)
                asked = await joining.request_of(db, self.keys, self.name, "ams", now())
            answer = await self.asked(text, asked)
            return await joining.become_member(store, self.folder, asked, answer)
        finally:
            await store.close()

    async def asked(self, text: str, asked: joining.JoinRequest) -> JoinAnswer:
        return await joining.join(join_token.decode(text, now()), self.keys, asked, HostClock())


def link_of(membership: Membership, keys: NodeKeys) -> NatsLink:
    user = LinkUser("node", member_inbox(keys.node_id), NKey.from_seed(keys.seed), hub_tls(membership.ca))
    return NatsLink(lambda: membership.hubs, user, HostClock())


def test_two_hosts_become_a_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The joined one is a member by what it stored, and is let in with its own rights; hub and host know each other."""

    async def scene() -> None:
        (tmp_path / "fra").mkdir()
        async with hub_appliance(tmp_path / "fra") as hub:
            async with hub.store.write() as db:
                await accounts.insert(db, msgspec.structs.replace(OWNER, id="acc_2"))
            host = Host(tmp_path / "ams")
            monkeypatch.setattr(joining, "CONNECT_S", 600.0)  # a try that waits for it takes longer than a test may
            assert await host.join(await hub.invite()) == ("owner",)
            membership = host.folder.membership()
            assert membership is not None
            assert (membership.fleet_id, membership.role, membership.name) == (hub.membership.fleet_id, "spoke", "ams1")
            assert membership.fleet_key == hub.membership.fleet_key
            config = (tmp_path / "fra/fleet/hub/hub.conf").read_text(encoding="utf-8")
            assert f"jetstream/{hub.membership.fleet_id}" in config, "another fleet's streams would be another's"
            own = link_of(membership, host.keys)
            own.start()
            try:
                await own.wait_connected(20)
                await own.publish(f"wga.hb.{host.keys.node_id}", b"1")
            finally:
                await own.close()
            store = await Store.open(tmp_path / "ams/store.sqlite")
            try:
                async with store.read() as db, hub.store.read() as hubs:
                    row = await fleet_state.read(db)
                    assert row is not None
                    assert (row.role, row.node_id, row.gen) == ("spoke", host.keys.node_id, 1)
                    assert may_open(row.heard, HostClock().now(), 86_400_000), "tokens are good at once"
                    assert await fleet_members.everyone(db) == await fleet_members.everyone(hubs)
                    assert await accounts.everyone(db) == []
            finally:
                await store.close()

    asyncio.run(scene())


def test_a_host_that_joined_and_stored_nothing_joins_with_the_same_token(tmp_path: Path) -> None:
    """Its power was cut behind the answer; another host is told that the token was used."""

    async def scene() -> None:
        (tmp_path / "fra").mkdir()
        async with hub_appliance(tmp_path / "fra") as hub:
            host, text = Host(tmp_path / "ams"), await hub.invite()
            asked = joining.JoinRequest(
                host.keys.node_id, "ams1", "ams", host.keys.nkey, host.keys.public_xkey, (1, 1), now()
            )
            await host.asked(text, asked)
            assert not host.folder.is_member
            await host.join(text)
            assert host.folder.is_member
            with pytest.raises(JoinRefused, match=r"was used already \(by ams1\): make another one on a hub"):
                await Host(tmp_path / "lon", "lon1").join(text)
            async with hub.store.read() as db:
                assert [each.name for each in await fleet_members.present(db)] == ["fra1", "ams1"]

    asyncio.run(scene())


def test_every_failure_on_the_way_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    """Of the token, of the network, of the clock, of names."""

    async def scene() -> None:
        (tmp_path / "fra").mkdir()
        async with hub_appliance(tmp_path / "fra") as hub:
            host, text = Host(tmp_path / "ams"), await hub.invite()
            token = join_token.decode(text, now())

            async def fails(error: type[FleetError], says: str, changed: JoinToken = token) -> None:
                with pytest.raises(error, match=says) as raised:
                    await host.join(join_token.encode(changed))
                assert "\n" not in str(raised.value)
                assert not host.folder.is_member

            with socket.socket() as closed:
                closed.bind(("127.0.0.1", 0))
                port = f"127.0.0.1:{closed.getsockname()[1]}"
                await fails(ConnectFailed, "refuses connections", msgspec.structs.replace(token, hubs=(port,)))
            other_name = msgspec.structs.replace(token, server_name="other.hub.internal")
            await fails(ConnectFailed, "has a certificate for another name", other_name)
            unknown = msgspec.structs.replace(token, seed=NKey.new().seed)
            await fails(JoinRefused, "does not know this join token, or no longer: make another one", unknown)
            host.name = "fra1"
            await fails(JoinRefused, "the fleet has a host called fra1 already: set node.name")
            host.name = "ams1"
            # By the hub's clock it is over; this host's is behind.
            late = join_token.decode(await hub.invite(lasts_ms=1000, made_at=now() - HOUR_MS), 0)
            await fails(
                JoinRefused, "this join token expired at", msgspec.structs.replace(late, expires_at=now() + 9999)
            )
            await host.join(text)

    asyncio.run(scene())


def test_an_invitation_lets_nobody_do_anything_else(tmp_path: Path) -> None:
    """Its holder hears nothing of other invitations or of members, and asks the hub nothing else."""

    async def scene() -> None:
        (tmp_path / "fra").mkdir()
        async with hub_appliance(tmp_path / "fra") as hub:
            mine, others = [join_token.decode(await hub.invite(), now()) for _ in range(2)]
            key, other = NKey.from_seed(mine.seed), NKey.from_seed(others.seed).public
            tls = hub_tls(hub.membership.ca)
            link = NatsLink(
                lambda: hub.membership.hubs, LinkUser("x", invitation_inbox(key.public), key, tls), HostClock()
            )
            link.start()
            try:
                await link.wait_connected(20)
                for subject in (
                    f"{invitation_inbox(other)}.>",
                    "_INBOX_join_*.>",
                    ">",
                    "wga.hb.*",
                    "wga.join.>",
                    "$SYS.>",
                ):
                    with pytest.raises(FleetError):
                        await link.subscribe(subject, _ignored)
                for subject in (join_subject(other), "wga.led.x.sync", "wga.hb.x", "$JS.API.INFO", "$KV.keys.a"):
                    with pytest.raises(FleetError):
                        await link.request(subject, b"{}", 5)
                assert b"does not understand" in await link.request(join_subject(key.public), b"{}", 5)
            finally:
                await link.close()

    asyncio.run(scene())


async def _ignored(_message: object) -> None:
    """Is never called."""


def test_a_hub_that_is_killed_goes_by_its_store_again(tmp_path: Path) -> None:
    """Who joined before it died is let in by the next one; who left is not."""

    async def scene() -> None:
        (tmp_path / "fra").mkdir()
        async with hub_appliance(tmp_path / "fra") as hub:
            host = Host(tmp_path / "ams")
            await host.join(await hub.invite())
            membership = host.folder.membership()
            assert membership is not None
            own = link_of(membership, host.keys)
            own.start()
            try:
                await own.wait_connected(20)
                assert hub.server.pid is not None
                os.kill(hub.server.pid, signal.SIGKILL)
                await until(lambda: hub.server.starts == 2 and own.connected)
                async with hub.store.write() as db:
                    await fleet_members.mark_left(db, host.keys.node_id, now())
                async with asyncio.timeout(60):
                    while hub.upkeep.fault is not None or own.connected:
                        await hub.upkeep.look()
                        await asyncio.sleep(0.05)
            finally:
                await own.close()

    asyncio.run(scene())


def test_a_host_is_in_one_fleet_at_a_time(tmp_path: Path) -> None:
    """The second `fleet init` changes nothing."""

    async def scene() -> None:
        async with hub_appliance(tmp_path) as hub:
            folder, files = FleetFolder(tmp_path), HubFiles(hub_place(tmp_path, Layout(tmp_path)))
            founder = founding.Founder("x", "x", "127.0.0.1:1", "127.0.0.1:1")
            before = files.config()
            with pytest.raises(Conflict, match="this host is in a fleet already"):
                async with hub.store.write() as db:
                    await founding.found(db, folder, files, NATS_SERVER, founder, now())
            assert (folder.membership(), files.config()) == (hub.membership, before)

    asyncio.run(scene())
