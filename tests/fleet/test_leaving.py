"""A host leaves the fleet: what the hub notes and answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from appliance.domain.clock import HostClock
from appliance.domain.errors import FleetError
from appliance.fleet.joining import leaving
from appliance.fleet.joining.leaving import LeaveDesk
from appliance.fleet.membership.members import FleetMember
from appliance.store.database import Store
from appliance.store.queries import fleet_members
from tests.support.fleet.bus import Bus

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.fleet.membership.members import Role

AMS, FRA = "nod_" + "a" * 24, "nod_" + "f" * 24


def member(node_id: str, name: str, role: Role) -> FleetMember:
    return FleetMember(node_id, name, name[:3], role, f"U{name}", node_id[4:].encode()[:1] * 32, joined_at=1)


def test_who_leaves_is_in_the_fleet_no_more(tmp_path: Path) -> None:
    """Asked again, it is answered alike; the hub itself does not leave so."""

    async def scene() -> None:
        bus, store = Bus(), await Store.open(tmp_path / "store.sqlite")
        try:
            async with store.write() as db:
                for each in (member(FRA, "fra1", "hub"), member(AMS, "ams1", "spoke")):
                    await fleet_members.put(db, each)
            await LeaveDesk(store, HostClock()).listen(bus.hub(FRA))
            for _ in range(2):
                await leaving.ask(bus.node(AMS), AMS)
                async with store.read() as db:
                    assert [each.name for each in await fleet_members.present(db)] == ["fra1"]
            with pytest.raises(FleetError, match="does not let this host leave: it is a hub"):
                await leaving.ask(bus.node(FRA), FRA)
        finally:
            await store.close()

    asyncio.run(scene())
