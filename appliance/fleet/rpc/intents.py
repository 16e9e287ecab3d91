"""Keeps what is still to be asked of other exits until they have answered, across restarts, and asks it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from appliance.domain.errors import ApplianceError, FleetError, NotKnown, StoreUnavailable, Unavailable
from appliance.fleet.rpc.operations import ABORT, DRAIN, END, VERIFY
from appliance.sessions.stopping import wait
from appliance.store.queries import fleet_requests as rows

if TYPE_CHECKING:
    from typing import Any

    import aiosqlite

    from appliance.domain.clock import Clock
    from appliance.fleet.rpc.exits import Exits, FleetView
    from appliance.fleet.rpc.operations import EndSession, TakeBack
    from appliance.store.database import Store
    from appliance.store.queries.fleet_requests import Intent

log = logging.getLogger(__name__)

PAUSE_S = 5.0  # between two tries
PATIENCE_S = 5.0
AT_ONCE = 100  # of one exit, in a try
KEPT_MS = 30 * 24 * 3600 * 1000  # what an exit has by then not come back for, has ended by itself
UNSAVED = 1000
_BY_NAME = {each.name: each for each in (ABORT, DRAIN, END, VERIFY)}


class Intents:
    """Keeps and carries out intents. Those that the store does not take now are kept in memory until it does."""

    def __init__(self, store: Store, exits: Exits, view: FleetView, clock: Clock) -> None:
        self._store = store
        self._exits = exits
        self._view = view
        self._clock = clock
        self._unsaved: list[tuple[str, str, bytes]] = []
        self._saving = asyncio.Lock()
        self._due = asyncio.Event()

    async def take_back(self, node_id: str, request: TakeBack) -> None:
        """Has an exit undo what it may have made for an operation that it has not answered."""
        await self._keep(node_id, ABORT.name, msgspec.json.encode(request))

    async def end(self, node_id: str, request: EndSession) -> None:
        """Has an exit end a session."""
        await self._keep(node_id, END.name, msgspec.json.encode(request))

    async def _keep(self, node_id: str, operation: str, request: bytes) -> None:
        self._unsaved.append((node_id, operation, request))
        del self._unsaved[:-UNSAVED]
        with suppress(StoreUnavailable):
            await self._save()
        self._due.set()

    async def _save(self) -> None:
        async with self._saving:
            if not self._unsaved:
                return
            saved, now = list(self._unsaved), self._clock.now().wall_ms
            async with self._store.write() as db:
                for each in saved:
                    await rows.intend(db, *each, now)
            self._unsaved = [each for each in self._unsaved if each not in saved]

    async def run(self) -> None:
        """Carries intents out as they come, and again every few seconds, until it is cancelled."""
        while True:
            self._due.clear()
            try:
                await self.carry_out()
            except StoreUnavailable as error:
                log.warning("what is to be asked of other exits is not known: %s", error)
            await wait(self._due, PAUSE_S)

    async def carry_out(self) -> int:
        """Asks all exits what is to be asked of them, once; returns how many have answered. Raises StoreUnavailable."""
        await self._save()
        async with self._store.read() as db:
            nodes = await rows.intended_nodes(db)
        if not nodes:
            return 0
        async with self._store.write() as db:
            await rows.give_up_before(db, self._clock.now().wall_ms - KEPT_MS)
        standing = self._view.standing()
        there = [node for node in nodes if standing.get(node, False)]
        return sum(await asyncio.gather(*map(self._carry_out_on, there)))

    async def _carry_out_on(self, node_id: str) -> int:
        async with self._store.read() as db:
            intents = await rows.intents(db, node_id, AT_ONCE)
        for done, intent in enumerate(intents):
            try:
                await self._ask(intent)
            except NotKnown as error:  # until it is upgraded; what comes behind does not wait for that
                log.info("%s cannot do %s yet: %s", intent.node_id, intent.operation, error)
            except (FleetError, Unavailable) as error:
                log.info("%s has not done %s yet: %s", intent.node_id, intent.operation, error)
                return done
            except ApplianceError as error:  # asking again changes nothing
                log.warning("%s refuses %s: %s", intent.node_id, intent.operation, error)
                async with self._store.write() as db:
                    await _refused(db, intent, error)
            else:
                async with self._store.write() as db:
                    await rows.done(db, intent.number)
        return len(intents)

    async def _ask(self, intent: Intent) -> None:
        """Returns when the exit has done it. Raises as Exits does."""
        operation: Any = _BY_NAME.get(intent.operation)
        if operation is not None:  # else of another version
            data = await self._exits.send(intent.node_id, intent.operation, intent.request, PATIENCE_S)
            self._exits.answer_of(operation, data)


async def _refused(db: aiosqlite.Connection, intent: Intent, error: ApplianceError) -> None:
    words = str(error) or type(error).__name__
    if intent.operation == DRAIN.name:  # a command waits for it
        await rows.refuse(db, intent.number, words)
    elif intent.operation == VERIFY.name:  # likewise
        await rows.refuse_one(db, intent.number, words)
    else:
        await rows.done(db, intent.number)
