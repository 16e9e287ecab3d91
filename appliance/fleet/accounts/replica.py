"""Follows the hub's accounts, tokens, members and terms on a spoke."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from appliance.domain.errors import CutOff, FleetError, NoResponder, NotAnswered, OlderHub, StoreUnavailable
from appliance.fleet.accounts.following import read_changes, write_changes
from appliance.fleet.accounts.sync_messages import SyncRequest
from appliance.store.queries import fleet_state
from appliance.store.queries.fleet_changes import Head

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from appliance.domain.clock import Clock, Moment
    from appliance.fleet.link.wire import HubLink
    from appliance.store.database import Store

log = logging.getLogger(__name__)

RETRY_S = 1.0  # while behind
TRIES = 2  # after so many another hub is dialled: one that has left a cluster is not reached by way of the others
ASK_S = 30.0  # at least so often, as beats may be lost, and so that it is known when the ledger was last heard
STORED_MS = 60_000  # how old what the store has of that may be


@dataclass(frozen=True, slots=True)
class Reactions:
    """Holds what is to be done when the replica has changed.

    `accounts`: as when an admin command has changed them, see Schedule.check_soon. `members`, `terms`: as the store
    has them now. `claims`: the ledger has lost what was claimed; everything is to be claimed again. `older`: the hub is
    of an older generation, or leads nothing; another one is to be looked for.
    """

    accounts: Callable[[], None]
    members: Callable[[], Awaitable[None]]
    terms: Callable[[str], Awaitable[None]]
    claims: Callable[[], None]
    older: Callable[[], None] = lambda: None


class Authorities(Protocol):
    """Keeps the authorities of certificates that this exit trusts; see FollowedAuthorities."""

    def marks(self) -> tuple[str, str]: ...

    async def take(self, ca: str, of_hub: bytes) -> bool: ...


class Replica:
    """Keeps this exit's accounts equal to the hub's: asks when a beat says that they differ, and now and then.

    `dialled`: returns what is told with it, see SyncRequest. `tells_at_once`: whether it asks again when it has
    written what is new, so that the hub knows of it.
    """

    def __init__(
        self,
        link: HubLink,
        store: Store,
        node_id: str,
        clock: Clock,
        reactions: Reactions,
        authorities: Authorities | None = None,
        dialled: Callable[[], str] = lambda: "",
    ) -> None:
        self._link = link
        self._store = store
        self._node_id = node_id
        self._clock = clock
        self._reactions = reactions
        self._authorities = authorities
        self._dialled = dialled
        self._gen = 0
        self._at = Head(0, "")
        self._behind = True
        self._wake = asyncio.Event()
        self._stored_ms: int | None = None  # CLOCK_BOOTTIME when `heard` was last stored
        self._claims: str | None = None
        self._new_members = False  # that are not told of yet
        self._new_terms: str | None = None
        self._fault = ""  # as last logged
        self._unanswered = 0  # times that no hub has answered where this exit is connected
        self.tells_at_once = False  # see above
        self.heard: Moment | None = None  # when the ledger last said that this exit has all changes

    async def load(self) -> None:
        """Reads how far this exit has followed. To be called first. Raises StoreUnavailable."""
        async with self._store.write() as db:
            row = await fleet_state.read(db)
            if row is None:
                # A backup of before this host joined was restored.
                await fleet_state.enter(db, "spoke", self._node_id, 0)
        if row is not None:
            self._gen, self._at, self.heard = row.gen, Head(row.acc_rev, row.acc_mark), row.heard

    @property
    def position(self) -> tuple[int, int]:
        """Returns (gen, rev) for this exit's beats."""
        return self._gen, self._at.rev

    @property
    def behind(self) -> bool:
        """Tells whether the hub is known to have what this exit has not."""
        return self._behind

    def beat(self, gen: int, rev: int) -> None:
        """Takes notice of a hub's beat."""
        if gen >= self._gen and (gen, rev) != self.position:
            self._behind = True
            self._wake.set()

    def reconnected(self) -> None:
        """Takes notice of a connection to a hub, which may be another one."""
        self._behind = True
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Follows until `stopping`."""
        while not stopping.is_set():
            followed = await self.follow()
            self._wake.clear()
            if followed and self._behind:
                continue
            await self._wait(stopping, ASK_S if followed else RETRY_S, woken=followed)

    async def _wait(self, stopping: asyncio.Event, seconds: float, *, woken: bool) -> None:
        waits = {asyncio.ensure_future(stopping.wait())}
        if woken:
            waits.add(asyncio.ensure_future(self._wake.wait()))
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def follow(self) -> bool:
        """Reads and writes what is new. Returns whether this exit has all of it now. Does not raise: it is logged."""
        self._behind = False
        try:
            await self._follow()
        except (FleetError, StoreUnavailable) as error:
            self._behind = True
            self._unanswered += isinstance(error, NoResponder | NotAnswered)
            if isinstance(error, OlderHub) or self._unanswered >= TRIES:
                self._reactions.older()
            self._report(error)
            return False
        self._unanswered = 0
        self._report(None)
        return True

    async def _follow(self) -> None:
        asked = self._clock.now()
        ca, of_hub = ("", "") if self._authorities is None else self._authorities.marks()
        told = SyncRequest(ca=ca, of_hub=of_hub, dialled=self._dialled())
        changes = await read_changes(self._link, self._node_id, self._gen, self._at, told)
        if changes.rows or changes.whole or (changes.gen, changes.at) != (self._gen, self._at):
            try:
                written = await write_changes(self._store, changes, asked.wall_ms)
            except OlderHub:
                raise
            except FleetError:
                self._at = Head(0, "")  # read everything next time
                raise
            self._gen, self._at = changes.gen, changes.at
            self._behind |= self.tells_at_once
            if written.withdrawn:
                log.warning("accounts that the hub does not have are out of use here: %d", written.withdrawn)
            if written.alters:
                self._reactions.accounts()
            self._new_members |= written.members
            self._new_terms = written.terms or self._new_terms
        await self._react()
        await self._heard(asked)
        if changes.claims and changes.claims != self._claims:
            self._claims = changes.claims
            self._reactions.claims()
        if self._authorities is not None and any(changes.authorities):
            # Asked again at once: the hub waits for being told that they are trusted here.
            self._behind |= await self._authorities.take(*changes.authorities)

    @property
    def memory(self) -> str:
        """Returns what names the ledger's memory of claims, as last told; "": it has not been yet."""
        return self._claims or ""

    async def _react(self) -> None:
        """Tells of members and terms that have changed: again, if it could not be done the last time."""
        if self._new_members:
            await self._reactions.members()
            self._new_members = False
        if self._new_terms is not None:
            await self._reactions.terms(self._new_terms)
            self._new_terms = None

    async def _heard(self, asked: Moment) -> None:
        """Notes that the ledger was heard: as of when it was asked, as what changed later may not be in its answer."""
        self.heard = asked
        if self._stored_ms is None or asked.boot_ms - self._stored_ms >= STORED_MS:
            async with self._store.write() as db:
                await fleet_state.put_heard(db, asked)
            self._stored_ms = asked.boot_ms

    def _report(self, error: FleetError | StoreUnavailable | None) -> None:
        """Logs a fault when it begins, and its end. That this exit is cut off is said elsewhere."""
        fault = "" if error is None or isinstance(error, CutOff) else str(error)
        if fault and fault != self._fault:
            log.warning("the fleet's accounts are not followed: %s", fault)
        elif self._fault and error is None:
            log.info("the fleet's accounts are followed again")
        if fault or error is None:
            self._fault = fault
