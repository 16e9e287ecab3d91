"""Runs this host's nats-server, by the unit or beside `serve`, and keeps it to what the store says."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.fleet.hub import nats_program
from appliance.fleet.hub.control import HubControl
from appliance.fleet.hub.files import HubFiles
from appliance.fleet.hub.nats_server import NatsServer
from appliance.fleet.hub.upkeep import HubUpkeep
from appliance.fleet.hub.watch import HubWatch
from appliance.fleet.link.link import NatsLink, hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.identity import HubAddress

if TYPE_CHECKING:
    from appliance.domain.clock import Clock
    from appliance.fleet.hub.files import HubPlace
    from appliance.fleet.hub.upkeep import HubFacts
    from appliance.fleet.membership.identity import HubSecrets, Membership
    from appliance.store.database import Store

EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}  # noqa: S104 (what is listened on)
SYSTEM = "_INBOX_sys"
STARTS_S, POLL_S = 5.0, 0.05


def own_address(listen: str, server_name: str) -> HubAddress:
    """Returns where this host reaches its own hub: what others dial may not lead back to it from here."""
    host, _, port = listen.rpartition(":")
    return HubAddress(f"{EVERYWHERE.get(host, host)}:{port}", server_name)


class HubServer:
    """Is what keeps the server. `own`: where this host reaches it. `upkeep` says what it goes by."""

    def __init__(self, facts: HubFacts, place: HubPlace, store: Store, clock: Clock) -> None:
        self.facts = facts
        self.own = own_address(facts.listen, facts.server_name)
        self.server = NatsServer(place, nats_program.find)
        self._place = place
        files = HubFiles(place)
        user = LinkUser("hub-system", SYSTEM, NKey.from_seed(facts.of_hub.system_seed), hub_tls(facts.membership.ca))
        self._system = NatsLink(lambda: (self.own,), user, clock)
        restart = files.ask_restart if place.by_unit else self.server.restart
        control = HubControl(files, nats_program.find, self._system, restart)
        self.upkeep = HubUpkeep(store, facts, control, clock)
        self._watch = HubWatch(control, facts.server_name, self.upkeep.put_out, clock)

    def trust(self, membership: Membership, of_hub: HubSecrets) -> None:
        """Goes by these authorities of certificates from now on."""
        self.upkeep.trust(membership, of_hub)
        self.facts = self.upkeep.facts
        self._system.trust(membership.ca)

    async def wait_listening(self) -> None:
        """Returns when the server lets connections in; after a while in any case."""
        host, _, port = self.own.address.rpartition(":")
        with suppress(TimeoutError):
            async with asyncio.timeout(STARTS_S):
                while not await _answers(host.strip("[]"), int(port)):  # noqa: ASYNC110 (another process listens)
                    await asyncio.sleep(POLL_S)

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs it until `stopping`; at the end the server ends last, unless the unit runs it.

        Raises FleetError, HostError or StoreUnavailable: its files cannot be made.
        """
        await self.upkeep.prepare()
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            if not self._place.by_unit:
                group.create_task(self.server.run(ended), name="nats-server")
            try:
                await self.wait_listening()
                self._system.start()
                async with asyncio.TaskGroup() as kept:
                    kept.create_task(self.upkeep.run(stopping), name="the hub's upkeep")
                    kept.create_task(self._watch.run(stopping), name="the watch of the hub's connections")
            finally:
                await self._system.close()
                ended.set()


async def _answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
