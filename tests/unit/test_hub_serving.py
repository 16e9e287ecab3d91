"""What a hub runs is started anew when a fault ends it, with a log line that says so."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from appliance.domain.clock import HostClock
from appliance.domain.fleet_member import FleetMember
from appliance.fleet.hub import hub_server, lead_of_cluster
from appliance.fleet.hub.certificates import make_authority
from appliance.fleet.hub.hub_serving import HubServing
from appliance.fleet.hub.leading import Leading
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.identity import FleetFolder, HubAddress, HubSecrets, Membership
from appliance.store.database import Store
from appliance.store.queries import fleet_members, fleet_state
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from appliance.fleet.hub.lead import LeadRecord
    from appliance.fleet.hub.upkeep import HubFacts

SECONDS = 30
NODES = [f"nod_{digit * 24}" for digit in "123"]
OWN = NODES[0]


class Upkeep:
    hubs_of: object = None
    in_force = True

    def goes_by(self, _cluster: int) -> bool:
        return self.in_force


class Server:
    """Stands for the hub's nats-server; `fails`: how many of them end by a fault."""

    fails = made = 0

    def __init__(self, facts: HubFacts, *_: object) -> None:
        Server.made += 1
        self.facts = facts
        self.own = HubAddress("127.0.0.1:1", "hub.internal")
        self.upkeep = Upkeep()

    def trust(self, *_: object) -> None:
        """It has these already."""

    async def wait_listening(self) -> None:
        """It listens."""

    async def run(self, stopping: asyncio.Event) -> None:
        if Server.fails:
            Server.fails -= 1
            raise RuntimeError("a fault of the server's")
        await stopping.wait()


@dataclass
class Hub:
    serving: HubServing

    async def looked(self) -> None:
        """Lets tasks that have been started begin, and looks."""
        for _ in range(3):
            await self.serving.look()
            await asyncio.sleep(0)


def on_a_hub(path: Path, body: Callable[[Hub], Awaitable[None]], *, cluster: bool = False) -> None:
    async def story() -> None:
        store, folder = await Store.open(path / "store.sqlite"), FleetFolder(path)
        folder.save_hub_secrets(HubSecrets(NKey.new().seed, NKey.new().seed, "KEY"))
        ca = make_authority("flt_1", HostClock().now().wall_ms).certificate
        own = HubAddress("127.0.0.1:1", "hub.internal")
        folder.save_membership(Membership("flt_1", "n1", "hub", (own,), ca, b"k" * 32))
        async with store.write() as db:
            await fleet_state.enter(db, "hub", OWN, 1)
            for number, node in enumerate(NODES if cluster else NODES[:1]):
                role = "standby" if number else "hub"
                at = f"127.0.0.{number + 1}:1"
                member = FleetMember(node, f"n{number}", "x", "spoke", f"U{number}", bytes(32), 1, dialled=at)
                await fleet_members.put(db, replace(member, role=role, hub_since=5 if cluster else 0))
        serving, stopping = HubServing(folder, store, VirtualClock(), "127.0.0.1:1"), asyncio.Event()
        try:
            async with asyncio.timeout(SECONDS):
                await body(Hub(serving))
        finally:
            stopping.set()
            await serving.run(stopping)  # ends what it runs
            await store.close()

    asyncio.run(story())


@pytest.fixture(autouse=True)
def _server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_server, "HubServer", Server)
    monkeypatch.setattr(Server, "fails", 0)
    monkeypatch.setattr(Server, "made", 0)


def test_a_server_that_a_fault_ends_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At the next look, which raises nothing of it."""

    async def body(hub: Hub) -> None:
        Server.fails = 1
        await hub.looked()
        assert Server.made == 2
        await hub.looked()
        assert Server.made == 2, "the second one runs"

    on_a_hub(tmp_path, body)
    assert "the hub's server has ended by a fault" in caplog.text


def test_the_part_in_who_leads_is_made_anew_when_a_fault_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One of several hubs would not know any more who leads."""
    runs = 0

    async def run(_self: Leading, stopping: asyncio.Event) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise RuntimeError("a fault of leading's")
        await stopping.wait()

    async def appointed(*_: object) -> bool:
        return True

    monkeypatch.setattr(Leading, "run", run)
    monkeypatch.setattr(lead_of_cluster, "appoint", appointed)

    async def body(hub: Hub) -> None:
        while runs < 2:
            await hub.looked()

    on_a_hub(tmp_path, body, cluster=True)
    assert "which hub leads has ended by a fault" in caplog.text


def test_files_that_have_changed_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that have not are not: a hub looks twice a second."""
    reads = 0

    def counted(self: FleetFolder) -> Membership | None:
        nonlocal reads
        reads += 1
        return of_folder(self)

    of_folder = FleetFolder.membership
    monkeypatch.setattr(FleetFolder, "membership", counted)

    async def body(hub: Hub) -> None:
        await hub.looked()
        assert (reads, Server.made) == (1, 1)
        folder = FleetFolder(tmp_path)
        folder.save_hub_secrets(HubSecrets(NKey.new().seed, NKey.new().seed, "KEY"))
        await hub.looked()
        assert (reads, Server.made) == (2, 2), "it has other keys"
        folder.forget_hub_secrets()
        await hub.looked()
        assert (reads, hub.serving.addresses()) == (3, ())

    on_a_hub(tmp_path, body)


def test_a_hub_is_appointed_once_its_server_has_left_the_cluster_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a record there of which hub leads, so that none would be made of these, and nobody would lead."""
    appointed = list[str]()

    async def appoint(_records: object, record: LeadRecord) -> bool:
        appointed.append(record.hub)
        return True

    async def run(_self: Leading, stopping: asyncio.Event) -> None:
        await stopping.wait()

    monkeypatch.setattr(lead_of_cluster, "appoint", appoint)
    monkeypatch.setattr(lead_of_cluster, "LOOK_S", 0.01)
    monkeypatch.setattr(Leading, "run", run)
    monkeypatch.setattr(Upkeep, "in_force", False)

    async def body(hub: Hub) -> None:
        for _ in range(10):
            await hub.looked()
            await asyncio.sleep(0.01)
        assert appointed == []
        monkeypatch.setattr(Upkeep, "in_force", True)
        while not appointed:
            await hub.looked()
            await asyncio.sleep(0.01)
        assert appointed == [OWN]

    on_a_hub(tmp_path, body, cluster=True)
