"""A hub as its appliance runs it, without the appliance: its store, its nats-server, what keeps that, and who admits.

async with hub_appliance(tmp_path) as hub:
    text = await hub.invite()
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.clock import HostClock
from appliance.fleet.hub.control import HubControl
from appliance.fleet.hub.files import HubFiles, hub_place
from appliance.fleet.hub.nats_server import NatsServer
from appliance.fleet.hub.upkeep import HubFacts, HubUpkeep
from appliance.fleet.joining import founding
from appliance.fleet.joining.desk import JoinDesk
from appliance.fleet.link.link import NatsLink, hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.identity import FleetFolder, Membership
from appliance.ops.install.layout import Layout
from appliance.store.database import Store
from tests.support.fleet.nats_program import NATS_SERVER
from tests.support.fleet.real_hub import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HOUR_MS = 3_600_000
WITHIN_S = 60.0


@dataclass
class HubAppliance:
    store: Store
    membership: Membership
    server: NatsServer
    upkeep: HubUpkeep
    port: int
    own: NatsLink
    desk: JoinDesk

    async def invite(self, lasts_ms: int = HOUR_MS, made_at: int | None = None) -> str:
        """A join token that the server knows of."""
        made_at = HostClock().now().wall_ms if made_at is None else made_at
        async with self.store.write() as db:
            text = await founding.invite(db, self.membership, "spoke", made_at, lasts_ms)
        await self.upkeep.apply()
        return text


def link(membership: Membership, seed: str, name: str) -> NatsLink:
    user = LinkUser(name, f"_INBOX_{name}", NKey.from_seed(seed), hub_tls(membership.ca))
    return NatsLink(lambda: membership.hubs, user, HostClock())


@asynccontextmanager
async def hub_appliance(state_dir: Path) -> AsyncIterator[HubAppliance]:
    """Founds a fleet, and runs its hub until the end of the block."""
    port, folder = free_port(), FleetFolder(state_dir)
    files = HubFiles(hub_place(state_dir, Layout(state_dir)))
    address = f"127.0.0.1:{port}"
    async with AsyncExitStack() as stack:
        store = await Store.open(state_dir / "store.sqlite")
        stack.push_async_callback(store.close)
        now = HostClock().now().wall_ms
        async with store.write() as db:
            founder = founding.Founder("fra1", "fra", address, address)
            membership = await founding.found(db, folder, files, NATS_SERVER, founder, now)
        folder.save_membership(membership)
        of_hub = folder.hub_secrets()
        assert of_hub is not None
        stopping, server = asyncio.Event(), NatsServer(files.place, lambda: NATS_SERVER)
        running = asyncio.ensure_future(server.run(stopping))
        system = link(membership, of_hub.system_seed, "sys")
        own = link(membership, of_hub.hub_seed, "hub")
        for each in (system, own):
            each.start()
            stack.push_async_callback(each.close)
            await each.wait_connected(WITHIN_S)
        facts = HubFacts(folder.keys().node_id, membership, of_hub, files.place.files, address)
        upkeep = HubUpkeep(store, facts, HubControl(files, lambda: NATS_SERVER, system), HostClock())
        desk = JoinDesk(store, membership, upkeep.apply, HostClock())
        await desk.listen(own)
        try:
            yield HubAppliance(store, membership, server, upkeep, port, own, desk)
        finally:
            stopping.set()
            await running
