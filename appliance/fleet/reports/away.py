"""Tells of sessions of an exit that is away what it reported last."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from appliance.fleet.reports.reports import SessionReport
from appliance.store.queries import fleet_fold

if TYPE_CHECKING:
    import aiosqlite

    from appliance.store.queries.fleet_fold import Said


@dataclass(frozen=True, slots=True)
class FoldedSession:
    """Holds what a session's exit, `node`, reported of it last. Costs are in millicents; None: it has no price."""

    id: str
    node: str
    report: SessionReport

    @property
    def state(self) -> str:
        return self.report.state

    @property
    def reason(self) -> str | None:
        """Returns why it ended. One that its exit lost with its store was ended by an admin, who restored that."""
        return self.report.reason or ("admin" if self.report.state == "terminated" else None)

    @property
    def time_millicents(self) -> int | None:
        return _sum([line.time_mc for line in self.report.lines])

    @property
    def bytes_millicents(self) -> int | None:
        return _sum([line.bytes_mc for line in self.report.lines])

    @property
    def currency(self) -> str | None:
        return next((line.rates.currency for line in self.report.lines if line.rates is not None), None)


async def folded(db: aiosqlite.Connection, session_id: str) -> FoldedSession | None:
    """Returns what the hub was told of a session; None: nothing.

    An id ends in eight digits that say whose it is: what another node says of it holds only if that one says nothing.
    """
    said = await fleet_fold.by_session(db, session_id)
    owner = next((each for each in said if session_id.endswith(id_ending(each.node))), None)
    return _folded(owner or said[0]) if said else None


async def folded_of_account(
    db: aiosqlite.Connection, account_id: str, node: str, before: tuple[int, str], most: int, *, live: bool = False
) -> list[FoldedSession]:
    """Returns up to `most` of an account's sessions on a node, newest first, before the place (created_at, id)."""
    found = await fleet_fold.of_account(db, account_id, node, before, most, live=live)
    return [_folded(each) for each in found]


def id_ending(node: str) -> str:
    """Returns what ids of sessions and devices end in that the node has made in a fleet."""
    return hashlib.sha256(node.encode()).hexdigest()[:8]


def _folded(said: Said) -> FoldedSession:
    return FoldedSession(said.session_id, said.node, msgspec.json.decode(said.said, type=SessionReport))


def _sum(costs: list[int | None]) -> int | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known else None
