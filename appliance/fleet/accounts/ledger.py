"""Answers the spokes that follow the hub's accounts, tokens, members and terms. It remembers nothing of them."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from contextlib import nullcontext
from typing import TYPE_CHECKING

import msgspec

from appliance.domain.errors import FleetError, StoreUnavailable
from appliance.fleet.accounts.sync_messages import LedgerRefusal, Row, SyncAnswer, SyncRequest
from appliance.fleet.hub.lead import Change
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.link.wire import PREFIX
from appliance.sessions.stopping import wait
from appliance.store.commits import StoreNews
from appliance.store.queries import fleet_changes, fleet_members
from appliance.store.queries.fleet_changes import ChangedRow, Head

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from appliance.fleet.link.wire import HubLink, Message
    from appliance.store.database import Store

log = logging.getLogger(__name__)

QUEUE = "ledger"
OF_ONE_AT_WORK = 8  # requests of one exit for one operation: one that asks all the time keeps no other waiting
PAGE_BYTES = 120_000  # of rows; a message may have 256 KB
PAGE_ROWS = 1_000
NOTHING = Head(0, "")
MEMORY_S = 1.0  # within which what remembers the claims must answer; accounts are followed without it, too
LOOK_S = 0.5  # how soon a change is told by the next beat


async def serve(
    link: HubLink,
    operation: str,
    handle: Callable[[str, bytes], Awaitable[bytes]],
    can_wait: Callable[[bytes], bool] = lambda _data: False,
) -> None:
    """Has `handle` answer an operation of the ledger: it is given the asking exit's id, and what is asked.

    The id is the subject's, so that it is bound by the exit's rights. What `handle` cannot answer is refused in words.
    `can_wait`: tells which requests leave half of the turns to others.
    """

    turns = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(OF_ONE_AT_WORK))
    of_waiting = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(OF_ONE_AT_WORK // 2))
    failed = 0

    async def answered(message: Message) -> None:
        nonlocal failed
        sender = message.subject.split(".")[2]
        if not message.reply:
            return  # nobody who asks awaits no answer; it would cost as much to find one
        try:
            async with of_waiting[sender] if can_wait(message.data) else nullcontext(), turns[sender]:
                answer = await handle(sender, message.data)
        except Unreadable as error:
            answer = msgspec.json.encode(LedgerRefusal(f"not understood: {error}"))
        except (FleetError, StoreUnavailable) as error:
            failed += 1
            if failed.bit_count() == 1:  # the 1st, 2nd, 4th, 8th…: who asks once can ask thousands of times
                log.warning("the ledger could not answer %s of %s, the %d.: %s", operation, sender, failed, error)
            answer = msgspec.json.encode(LedgerRefusal(str(error)))
        await message.answer(answer)

    await link.subscribe(f"{PREFIX}.led.*.{operation}", answered, QUEUE)


class SyncLedger:
    """Answers `sync` from the hub's store. `gen`: the fleet's generation.

    `claims`: names what remembers the claims, `base`: see SyncAnswer. `authorities`: see HubRotation.told.
    `is_standby`: whether a member is another hub of several, or to be one.
    """

    def __init__(
        self,
        store: Store,
        gen: int,
        claims: Callable[[], Awaitable[str]] | None = None,
        base: Head = NOTHING,
        authorities: Callable[[str, SyncRequest], Awaitable[tuple[str, bytes]]] | None = None,
        is_standby: Callable[[str], bool] = lambda _node: False,
    ) -> None:
        self._store = store
        self._news = StoreNews(store.commits)
        self._gen = gen
        self._base = base.rev, base.mark
        self._claims = claims
        self._authorities = authorities
        self._is_standby = is_standby
        self._head = Head(0, "")
        self.told: Change | None = None  # the newest of this hub's changes that a standby has in its store
        self.heard: Callable[[], None] = lambda: None  # called when that is another one

    @property
    def position(self) -> tuple[int, int]:
        """Returns (gen, rev) for this hub's beats, as last looked at."""
        return self._gen, self._head.rev

    async def listen(self, link: HubLink) -> None:
        """Begins to answer. Raises what `subscribe` does."""
        await serve(link, "sync", self.answer)

    async def run(self, stopping: asyncio.Event) -> None:
        """Looks for changes until `stopping`."""
        while not stopping.is_set():
            await self.look()
            await wait(stopping, LOOK_S)

    async def look(self) -> None:
        """Looks once. Does not raise: while the store cannot be read, there is nothing new to tell."""
        if not self._news.is_any():
            return
        try:
            async with self._store.read() as db:
                self._head = await fleet_changes.head(db)
            self._news.taken()
        except StoreUnavailable as error:
            log.warning("the fleet is not told of changes: %s: %s", error, error.__cause__)

    async def answer(self, sender: str, data: bytes) -> bytes:
        """Answers one request. Raises StoreUnavailable, or Unreadable: it is none."""
        asked = read(data, SyncRequest)
        if asked.all_after is not None:
            answer = await self._everything(asked.all_after)
        else:
            after = Head(asked.after, asked.mark)
            answer = await self._changes(after)
            if not answer.anew and asked.gen == self._gen and self._is_standby(sender):
                self._note(after)
            if self._authorities is not None:
                told = await self._authorities(sender, asked)
                answer = msgspec.structs.replace(answer, authorities=told)
        return msgspec.json.encode(answer)

    def _note(self, after: Head) -> None:
        if self.told is None or after.rev > self.told.rev:
            self.told = Change(self._gen, after.rev, after.mark)
            self.heard()

    async def _changes(self, after: Head) -> SyncAnswer:
        claims = await self._memory()
        async with self._store.read() as db:
            if not await fleet_changes.known(db, after):
                hubs = tuple(each.id for each in await fleet_members.hubs(db))
                return SyncAnswer(self._gen, 0, "", anew=True, claims=claims, base=self._base, hubs=hubs)
            found = await fleet_changes.after(db, after.rev, PAGE_ROWS)
        rows, cut = _page(found)
        last = found[len(rows) - 1].at if rows else after
        last = last or after
        return SyncAnswer(self._gen, last.rev, last.mark, rows, more=cut or len(found) == PAGE_ROWS, claims=claims)

    async def _memory(self) -> str:
        """Returns what names the memory of claims; "": it is not known, as while most of several hubs are away."""
        if self._claims is None:
            return ""
        try:
            async with asyncio.timeout(MEMORY_S):
                return await self._claims()
        except (FleetError, TimeoutError) as error:
            log.debug("the memory of claims is not known: %s", error)
            return ""

    async def _everything(self, behind: tuple[str, str]) -> SyncAnswer:
        kind, id_ = behind
        async with self._store.read() as db:
            # Before the rows: what changes meanwhile has a later number, and is asked for afterwards.
            head = await fleet_changes.head(db)
            found = list[ChangedRow]()
            for each in fleet_changes.KINDS:
                if each >= kind and len(found) < PAGE_ROWS:
                    found += await fleet_changes.all_of(db, each, id_ if each == kind else "", PAGE_ROWS - len(found))
        rows, cut = _page(found)
        return SyncAnswer(self._gen, head.rev, head.mark, rows, more=cut or len(found) >= PAGE_ROWS)


def _page(found: Iterable[ChangedRow]) -> tuple[list[Row], bool]:
    """Returns as many rows as a page takes, one at least, and whether there are others."""
    rows, size = list[Row](), 0
    for each in found:
        row = b"null" if each.row is None else each.row.encode()
        size += len(row) + len(each.id) + 32
        if rows and size > PAGE_BYTES:
            return rows, True
        rows.append((each.kind, each.id, msgspec.Raw(row)))
    return rows, False
