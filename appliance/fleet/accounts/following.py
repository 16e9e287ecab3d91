"""Reads what has changed on the hub, page by page, and writes it into this exit's store."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import msgspec

from appliance.domain.errors import FleetError, NotAnswered, OlderHub
from appliance.domain.fleet_member import is_cluster
from appliance.fleet.accounts.sync_messages import LedgerRefusal, SyncAnswer, SyncRequest, subject
from appliance.fleet.link.reading import Unreadable, read
from appliance.store.queries import fleet_conflicts, fleet_members, fleet_replica, fleet_state, fleet_terms
from appliance.store.queries import node as node_row
from appliance.store.queries.fleet_changes import Head
from appliance.store.queries.fleet_replica import KeptAccount, KeptMember, KeptToken

if TYPE_CHECKING:
    from collections.abc import Iterable

    import aiosqlite

    from appliance.fleet.link.wire import HubLink
    from appliance.store.database import Store
    from appliance.store.queries.fleet_state import FleetRow

T = TypeVar("T")

ANSWER_S = 5.0  # within which the ledger must answer
GONE = b"null"
NOTHING_TOLD = SyncRequest()
STARTS = 3  # of reading everything: the hub may be rolled back, or replaced, meanwhile


@dataclass(slots=True)
class HubChanges:
    """Holds rows of the hub, by kind and id, as JSON, or `null`; `whole`: they are all that it has.

    `at`: the change up to which they are. `claims`, `authorities`: see SyncAnswer. `told`: what is told with
    each question, see SyncRequest. `stored`: the generation of what it has in its store; 0 behind the first page.
    `lacks`: the hub does not know the change up to which this exit had followed.
    """

    gen: int
    at: Head
    whole: bool = False
    rows: dict[str, dict[str, bytes]] = field(default_factory=dict)
    claims: str = ""
    authorities: tuple[str, bytes] = ("", b"")
    told: SyncRequest = NOTHING_TOLD
    stored: int = 0
    lacks: bool = False

    def take(self, answer: SyncAnswer) -> None:
        """Adds a page: what it says is newer than what is there."""
        if any(answer.authorities):
            self.authorities = answer.authorities
        self.claims = answer.claims or self.claims
        for kind, id_, row in answer.rows:
            self.rows.setdefault(kind, {})[id_] = bytes(row)


async def read_changes(
    link: HubLink, node_id: str, gen: int, known: Head, told: SyncRequest = NOTHING_TOLD
) -> HubChanges:
    """Returns what is new after `known`, up to one moment of the hub. Raises FleetError: it could not be read.

    `gen`: the newest generation that was seen; an older hub is not followed: raises OlderHub.
    """
    for _ in range(STARTS):
        found = HubChanges(gen, known, told=told, stored=gen)
        if await _read_after(link, node_id, found):
            return found
        found = HubChanges(gen, Head(0, ""), whole=True, told=told, lacks=True)
        await _read_everything(link, node_id, found)
        if await _read_after(link, node_id, found):
            return found
        known = Head(0, "")
    raise FleetError("the hub's accounts are others each time that they are read")


async def _read_after(link: HubLink, node_id: str, found: HubChanges) -> bool:
    """Adds all changes after what was found. Returns whether the hub knows that."""
    while True:
        asked = msgspec.structs.replace(found.told, after=found.at.rev, mark=found.at.mark, gen=found.stored)
        answer = await _ask(link, node_id, asked, found.gen)
        if answer.anew:
            return False
        found.gen, found.at, found.stored = answer.gen, Head(answer.rev, answer.mark), 0
        found.take(answer)
        if not answer.more:
            return True
        if not answer.rows:
            raise NotAnswered("the ledger says that there is more, and does not tell it")


async def _read_everything(link: HubLink, node_id: str, found: HubChanges) -> None:
    behind = ("", "")
    while True:
        answer = await _ask(link, node_id, SyncRequest(all_after=behind), found.gen)
        if behind == ("", ""):
            found.gen, found.at = answer.gen, Head(answer.rev, answer.mark)
        found.take(answer)
        if not (answer.more and answer.rows):
            return
        behind = answer.rows[-1][:2]


async def _ask(link: HubLink, node_id: str, request: SyncRequest, gen: int) -> SyncAnswer:
    data = await link.request(subject(node_id), msgspec.json.encode(request), ANSWER_S)
    try:
        answer = read(data, SyncAnswer | LedgerRefusal)
    except Unreadable as error:
        raise NotAnswered(f"the ledger's answer is not understood: {error}") from error
    if isinstance(answer, LedgerRefusal):
        raise NotAnswered(f"the ledger: {answer.error}")
    if answer.gen < gen:
        raise OlderHub(f"the hub is of generation {answer.gen}, and {gen} has been seen: it is not followed")
    return answer


@dataclass(frozen=True, slots=True)
class Written:
    """Tells what a change has touched. `alters`: accounts or tokens that memory may have; `terms`: None: the same.

    `withdrawn`: how many accounts are out of use now, as the hub does not have them.
    """

    alters: bool
    members: bool
    terms: str | None
    withdrawn: int


async def write_changes(store: Store, changes: HubChanges, now: int) -> Written:
    """Writes the rows, and how far they go, in one transaction; asks the server to act on it as an admin command does.

    Raises StoreUnavailable. Raises FleetError if the rows do not fit together: everything should be read anew. Raises
    OlderHub, on one of several hubs, if that which leads was rolled back: what it lacks may be acknowledged; another
    one leads soon.
    """
    try:
        async with store.write() as db:
            row = await fleet_state.read(db)
            if row is not None and (row.role == "hub" or row.gen > changes.gen):
                raise FleetError("a newer generation has begun meanwhile")  # of which this host may be the hub
            if row is not None and changes.lacks and await _holds_more(db, row, changes.gen):
                raise OlderHub("the hub lacks what it had told this host, which is another hub: it is not followed")
            written = await _write(db, changes, now)
            await fleet_state.follow_to(db, changes.gen, changes.at.rev, changes.at.mark)
            await fleet_state.follow_role(db)
            if written.alters:
                await node_row.request(db)
    except (sqlite3.IntegrityError, msgspec.MsgspecError, ValueError) as error:
        raise FleetError(f"the hub's accounts cannot be taken over: {error}") from error
    return written


async def _holds_more(db: aiosqlite.Connection, row: FleetRow, gen: int) -> bool:
    return row.role == "standby" and row.gen == gen and row.acc_rev > 0 and is_cluster(await fleet_members.hubs(db))


async def _write(db: aiosqlite.Connection, changes: HubChanges, now: int) -> Written:
    alters, withdrawn = False, 0
    for kind in ("token", "account", "member"):
        if changes.whole:
            told = {id_: row.decode() for id_, row in changes.rows.get(kind, {}).items()}
            await fleet_conflicts.drop_same(db, kind, told)
        gone = [id_ for id_, row in changes.rows.get(kind, {}).items() if row == GONE]
        if changes.whole:
            others = await fleet_replica.others(db, kind, changes.rows.get(kind, {}))
            withdrawn += len(others) if kind == "account" else 0
            gone += others
        await fleet_replica.remove(db, kind, gone, now)
        alters |= bool(gone) and kind != "member"
    alters |= await fleet_replica.put_accounts(db, _rows(changes, "account", KeptAccount), now)
    alters |= await fleet_replica.put_tokens(db, _rows(changes, "token", KeptToken))
    members = _rows(changes, "member", KeptMember)
    await fleet_replica.put_members(db, members)
    terms = None
    for row in changes.rows.get("terms", {}).values():
        text = row.decode()
        if row != GONE and await fleet_terms.put(db, text):
            terms = text
    return Written(alters, bool(changes.rows.get("member")), terms, withdrawn)


def _rows(changes: HubChanges, kind: str, shape: type[T]) -> list[T]:
    rows: Iterable[bytes] = changes.rows.get(kind, {}).values()
    return [msgspec.json.decode(row, type=shape) for row in rows if row != GONE]
