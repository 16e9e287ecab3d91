"""Plays, in a thread, what a running server does for the fleet's commands.

It holds the lock of the state directory, acts on requests, takes part in the fleet once the host is in one, as a hub
with the real nats-server and claims in memory, and notes how that is.

with ServerBeside(state, "127.0.0.1:7422") as server: ...
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

from appliance.config import state_file
from appliance.domain.clock import HostClock
from appliance.domain.entities import Reason, State
from appliance.fleet.claims.ledger import ClaimLedger
from appliance.fleet.hub.config import member_inbox
from appliance.fleet.hub.control import HubControl
from appliance.fleet.hub.files import HubFiles, hub_place
from appliance.fleet.hub.nats_server import NatsServer
from appliance.fleet.hub.partings import HubPartings
from appliance.fleet.hub.upkeep import HubFacts, HubUpkeep
from appliance.fleet.joining.desk import JoinDesk
from appliance.fleet.joining.leaving import LeaveDesk
from appliance.fleet.link.link import NatsLink, hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from appliance.fleet.membership.identity import FleetFolder
from appliance.fleet.owner.command_claims import CommandClaims
from appliance.fleet.status.status import FleetStatus, NodeStatus
from appliance.fleet.status.status_file import StatusNotes
from appliance.store.database import Store
from appliance.store.queries import fleet_members
from appliance.store.queries import node as node_rows
from appliance.store.queries import sessions as session_rows
from tests.support.fleet.claims_kept import RecordsInMemory, owner
from tests.support.fleet.nats_program import NATS_SERVER

if TYPE_CHECKING:
    from types import TracebackType

    from appliance.fleet.membership.identity import Membership
    from appliance.store.state_dir import StateDir

LOOK_S = 0.05
CLOCK = HostClock()


class ServerBeside:
    """`unsent`: sessions that it says are not reported."""

    def __init__(self, state: StateDir, listen: str) -> None:
        self._state = state
        self._listen = listen
        self._stopping = threading.Event()
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._main)
        self._failed: BaseException | None = None
        self.unsent = 0

    def __enter__(self) -> ServerBeside:
        self._thread.start()
        assert self._serving.wait(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(30)
        if self._failed is not None:
            raise self._failed

    def _main(self) -> None:
        try:
            with self._state.serving():
                asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 (raised where the block ends)
            self._failed = error
        finally:
            self._serving.set()

    async def _serve(self) -> None:
        store = await Store.open(self._state.store)
        try:
            self._serving.set()
            while not self._stopping.is_set():
                if self._state.in_fleet:
                    await self._take_part(store)
                await self._act(store)
                await asyncio.sleep(LOOK_S)
        finally:
            await store.close()

    async def _act(self, store: Store) -> None:
        async with store.write() as db:
            row = await node_rows.read(db)
            if row.requested > row.applied:
                await node_rows.mark_applied(db, row.requested)

    async def _take_part(self, store: Store) -> None:
        """Until the host is in the fleet no more."""
        folder = FleetFolder(self._state.path)
        membership = folder.membership()
        assert membership is not None
        async with AsyncExitStack() as stack:
            if membership.role == "hub":
                await self._be_hub(stack, store, folder, membership)
            keys = folder.keys()
            link = _link(membership, keys.seed, keys.node_id, member_inbox(keys.node_id))
            link.start()
            stack.push_async_callback(link.close)
            claims = CommandClaims(store, owner(link, keys.node_id), CLOCK)
            notes = StatusNotes(self._state.fleet_status, lambda: status, CLOCK)
            while self._state.in_fleet and not self._stopping.is_set():
                await self._act(store)
                await claims.look()
                status = await self._status(store, keys.node_id, connected=link.connected)
                await notes.note()
                await asyncio.sleep(LOOK_S)
            with suppress(OSError):
                state_file.forget(self._state.fleet_status)

    async def _be_hub(self, stack: AsyncExitStack, store: Store, folder: FleetFolder, membership: Membership) -> None:
        files, stopping = HubFiles(hub_place(self._state.path)), asyncio.Event()
        of_hub = folder.hub_secrets()
        assert of_hub is not None
        system = _link(membership, of_hub.system_seed, "sys", "_INBOX_sys")
        own = _link(membership, of_hub.hub_seed, "hub", "_INBOX_hub")
        facts = HubFacts(folder.keys().node_id, membership, of_hub, files.place.files, self._listen)
        upkeep = HubUpkeep(store, facts, HubControl(files, lambda: NATS_SERVER, system), CLOCK)
        await upkeep.prepare()
        server = asyncio.create_task(NatsServer(files.place, lambda: NATS_SERVER).run(stopping))

        async def end() -> None:
            stopping.set()
            await asyncio.gather(server, keeping, freeing)

        for each in (system, own):
            each.start()
            stack.push_async_callback(each.close)
            await each.wait_connected(20)
        keeping = asyncio.create_task(upkeep.run(stopping))
        stack.push_async_callback(end)
        await JoinDesk(store, membership, upkeep.apply, CLOCK, of_hub).listen(own)
        await LeaveDesk(store, CLOCK).listen(own)
        claims = ClaimLedger(RecordsInMemory(), RecordsInMemory(), CLOCK, _nowhere)
        await claims.listen(own)
        freeing = asyncio.create_task(HubPartings(store, claims, lambda _node: False).run(stopping))

    async def _status(self, store: Store, own_id: str, *, connected: bool) -> FleetStatus:
        async with store.write() as db:
            ending = [s for s in await session_rows.unfinished(db) if s.state is State.CLOSING]
            await session_rows.mark_terminated(db, [(s.id, Reason.DRAINED, CLOCK.now().wall_ms) for s in ending])
            live = len(await session_rows.unfinished(db))
            members = await fleet_members.present(db)
        return FleetStatus(
            nodes=tuple(NodeStatus(m.name, m.id, m.region, m.role, True, None, 0, 0, live, "1") for m in members),
            generation=1,
            quorum=connected,
            complete_until=None,
            this=own_id,
            alone=None,
            cut_off_since=None if connected else "2026-11-30T12:00:00Z",
            failure=None,
            unsent_sessions=self.unsent,
            lag_s=0,
            meanwhile=(),
        )


async def _nowhere(_id: str) -> None: ...


def _link(membership: Membership, seed: str, name: str, inbox: str) -> NatsLink:
    user = LinkUser(name, inbox, NKey.from_seed(seed), hub_tls(membership.ca))
    return NatsLink(lambda: membership.hubs, user, CLOCK)
