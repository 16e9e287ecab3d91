"""Begins a generation of the fleet's accounts with another hub, and ends this host's own when there is a newer one.

Each is one transaction: a running server looks at the store, and does what it says this host is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from appliance.domain.errors import Conflict, FleetError, NotAnswered
from appliance.domain.fleet_member import is_cluster
from appliance.fleet.accounts.sync_messages import LedgerRefusal, SyncAnswer, SyncRequest, subject
from appliance.fleet.link.hub_connection import HubConnection
from appliance.fleet.link.reading import Unreadable, read
from appliance.store.queries import fleet_changes, fleet_conflicts, fleet_members, fleet_state
from appliance.store.queries.fleet_changes import Head

if TYPE_CHECKING:
    from collections.abc import Iterable

    import aiosqlite

    from appliance.domain.clock import Clock
    from appliance.fleet.link.nats_client import LinkUser
    from appliance.fleet.membership.identity import HubAddress
    from appliance.store.queries.fleet_state import FleetRow

DIAL_S, ANSWER_S = 4.0, 3.0
# How far a generation is ahead that is begun by hand as the other hubs are lost: if they are not, they may have begun
# others meanwhile, and yield all the same.
BY_HAND = 100
NOTHING = Head(0, "")
PAGE_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Generation:
    """Is what a hub says of its accounts. `base`: the last change of the generation before that it has.

    `hubs`: the ids of the hub and its standbys; empty: it is of an older version, which does not say.
    """

    number: int
    base: Head
    hubs: tuple[str, ...] = ()


async def begin(db: aiosqlite.Connection, dialled: str, now: int) -> int:
    """Makes this host, a standby, the hub of a new generation; returns its number. Raises Conflict: it is none.

    It was one of several hubs if the others are lost: it goes on alone, and they are spokes when they are back.
    """
    row = await fleet_state.read(db)
    if row is None or row.role != "standby":
        raise Conflict("this host is not the standby of its fleet: wg-appliance fleet status shows which one is")
    were_several = is_cluster(await fleet_members.hubs(db))
    generation = row.gen + (BY_HAND if were_several else 1)
    await _lead(db, row.node_id, generation)
    await fleet_members.put_dialled(db, row.node_id, dialled)
    if were_several:
        await fleet_members.set_hubs(db, row.node_id, (), now)
    return generation


async def take_lead(db: aiosqlite.Connection, gen: int) -> None:
    """Makes this host, one of several hubs, the one that leads, in this generation. Raises FleetError: it is none."""
    row = await fleet_state.read(db)
    if row is None or row.role == "spoke":
        raise FleetError("this host is no hub any more")
    if gen <= row.gen:
        raise FleetError(f"this host is of generation {row.gen} meanwhile, and does not begin {gen}")
    if row.role == "hub":
        await fleet_state.lead_on(db, gen, await fleet_changes.head(db))
        await fleet_changes.nudge(db)
    else:
        await _lead(db, row.node_id, gen)


async def _lead(db: aiosqlite.Connection, node_id: str, gen: int) -> None:
    await fleet_state.lead(db, gen)
    await fleet_changes.record(db)  # before the members change, so that they are followed
    await fleet_members.lead(db, node_id)
    await _offer_only_what_is_lacking(db)


async def _offer_only_what_is_lacking(db: aiosqlite.Connection) -> None:
    """Drops conflicts whose rows this host still has as they are: it has followed no hub without them."""
    kept = await fleet_conflicts.everything(db)
    for kind in fleet_conflicts.KINDS:
        ids = [each.id for each in kept if each.kind == kind]
        await fleet_conflicts.drop_same(db, kind, await fleet_changes.named(db, kind, ids))


async def yield_to(db: aiosqlite.Connection, newer: Generation, now: int) -> int | None:
    """Makes this host, a hub, the standby of a newer generation's. Returns how many of its changes that one lacks.

    None: it is no hub any more, or begins a generation that is as new; nothing is changed.

    An operator may have begun that generation by hand, without this host among its hubs. Then this host becomes a
    spoke, and stops the server with which other hubs of before could still agree on a leader.

    The changes that the newer generation lacks are kept as conflicts. Which they are is not known if this store was
    rolled back to before that one began. One that had followed nothing of this host's may lack all that is here; what
    it has all the same is dropped from the conflicts once this host follows it.
    """
    row, lacking = await fleet_state.read(db), []
    if row is None or row.role != "hub" or row.gen >= newer.number:
        return None
    if (had := await _surely_had(db, row, newer)) is not None:
        found = await fleet_changes.after(db, had, fleet_changes.KEPT)
        lacking = [each for each in found if each.kind in fleet_conflicts.KINDS]
        await fleet_conflicts.note(db, lacking, now)
    if newer.base == NOTHING:
        await _note_everything(db, now)
    held = await _held(db, row, newer)
    await fleet_changes.forget(db)
    await fleet_state.stand_by(db, newer.number, held)
    await fleet_members.follow(db, row.node_id)
    if newer.hubs and row.node_id not in newer.hubs:
        await fleet_state.be_spoke(db)
    return len(lacking)


async def _held(db: aiosqlite.Connection, row: FleetRow, newer: Generation) -> tuple[int, Head]:
    """Returns up to what this hub surely has all that was acknowledged, after its generation.

    It had all of the generations before when it began to lead. Of its own it has what it knows; more of it may have
    been acknowledged, of which it knows nothing if it was rolled back.
    """
    gen, kept = row.kept
    held = kept if gen == row.gen else NOTHING
    if newer.base.rev > held.rev and await fleet_changes.known(db, newer.base):
        held = newer.base
    return row.gen, held


async def _surely_had(db: aiosqlite.Connection, row: FleetRow, newer: Generation) -> int | None:
    """Returns the number of the last of this hub's changes that the newer generation has for sure; None: unknown.

    Of several hubs another one may have led between the two: it had what was acknowledged.
    """
    if newer.base == NOTHING or await fleet_changes.known(db, newer.base):
        return newer.base.rev
    if not is_cluster(await fleet_members.hubs(db)):
        return None
    _, kept = row.kept
    return kept.rev if await fleet_changes.known(db, kept) else 0


async def _note_everything(db: aiosqlite.Connection, now: int) -> None:
    """Keeps all rows as conflicts; those that are kept already stay as they are."""
    for kind in fleet_conflicts.KINDS:
        behind: str | None = ""
        while behind is not None:
            page = await fleet_changes.all_of(db, kind, behind, PAGE_ROWS)
            await fleet_conflicts.note_more(db, page, now)
            behind = page[-1].id if len(page) == PAGE_ROWS else None


async def ask(user: LinkUser, node_id: str, hub: HubAddress, clock: Clock) -> Generation:
    """Returns the generation of a hub. Raises ConnectFailed: it is not reached; FleetError: it does not answer."""
    connection = await HubConnection.dial(user, hub, clock)
    try:
        text = await connection.ask(subject(node_id), msgspec.json.encode(SyncRequest()), ANSWER_S)
    finally:
        await connection.close()
    try:
        answer = read(text, SyncAnswer | LedgerRefusal)
    except Unreadable as error:
        raise NotAnswered(f"the ledger's answer is not understood: {error}") from error
    if isinstance(answer, LedgerRefusal):
        raise NotAnswered(f"the ledger: {answer.error}")
    return Generation(answer.gen, Head(*answer.base), answer.hubs)


async def newer_than(
    own: int, user: LinkUser, node_id: str, others: Iterable[HubAddress], clock: Clock
) -> Generation | None:
    """Returns the newest generation of the other hubs that are reached; None: none is newer than this host's."""

    async def asked(hub: HubAddress) -> Generation | None:
        try:
            async with asyncio.timeout(DIAL_S + ANSWER_S):
                return await ask(user, node_id, hub, clock)
        except (FleetError, TimeoutError):
            return None

    answers = await asyncio.gather(*(asked(each) for each in others))
    found = [each for each in answers if each is not None and each.number > own]
    return max(found, key=lambda each: each.number, default=None)
