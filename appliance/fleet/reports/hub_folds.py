"""Reads on a hub what exits have reported of sessions: implements `Folds` (reported.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.entities import Account, Reason, State
from appliance.domain.tiers import Tier
from appliance.fleet.reports import away
from appliance.fleet.reports.away import FoldedSession
from appliance.fleet.reports.reported import Folded
from appliance.fleet.rpc.facts import SessionFacts
from appliance.store.queries import fleet_fold, fleet_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from appliance.domain.entities import Session
    from appliance.domain.fleet_use import ExitWindows
    from appliance.fleet.rpc.operations import Place
    from appliance.store.database import Store

NEWEST: Place = (2**62, "\U0010ffff")  # no session stands above it


class HubFolds:
    """Reads the store. `is_present`: whether a host is in the fleet still."""

    def __init__(self, store: Store, is_present: Callable[[str], bool]) -> None:
        self._store = store
        self._is_present = is_present

    async def session(self, session_id: str) -> Folded | None:
        """Returns a session of any account; None: no exit has reported it. Raises StoreUnavailable."""
        async with self._store.read() as db:
            found = await away.folded(db, session_id)
        return None if found is None else Folded(found.node, session_of(found))

    async def page(
        self, account_id: str, node_ids: Collection[str], *, live: bool, before: Place | None, limit: int
    ) -> Sequence[Session]:
        """Returns sessions of these exits and of those that have left, as Folds says. Raises StoreUnavailable."""
        place, found = before or NEWEST, list[FoldedSession]()
        async with self._store.read() as db:
            left = [node for node in await fleet_fold.reported_until(db) if not self._is_present(node)]
            for node in {*node_ids, *left}:
                found += await away.folded_of_account(db, account_id, node, place, limit, live=live)
        found.sort(key=lambda each: (each.report.created_at, each.id), reverse=True)
        return [session_of(each) for each in found[:limit]]

    async def windows(self, account_id: str) -> Sequence[ExitWindows]:
        """Returns the account's windows on each exit, also on those that have left. Raises StoreUnavailable."""
        async with self._store.read() as db:
            return await fleet_windows.of_account(db, account_id)


def session_of(folded: FoldedSession) -> Session:
    """Returns a session as an API shows it. One that an admin ended in words of their own has those as its reason."""
    report, ending = folded.report, folded.reason
    known = ending is not None and ending in set(Reason)
    rates = next((line.rates for line in reversed(report.lines) if line.rates is not None), None)
    tier = Tier(report.tier) if report.tier in set(Tier) else Tier.FREE
    facts = SessionFacts(
        id=folded.id,
        tier=tier,
        account_tier=tier,
        region=report.region,
        public_ip=report.public_ip,
        public_key=b"",
        state=State(folded.state) if folded.state in set(State) else State.TERMINATED,
        created_at=report.created_at,
        expires_at=report.expires_at,
        bytes_in=report.bytes_in,
        bytes_out=report.bytes_out,
        counted_ms=report.ms,
        rates=None if rates is None else (rates.currency, rates.per_minute, rates.per_gib),
        reason=Reason(ending) if ending is not None and known else Reason.ADMIN if ending else None,
        told=ending if ending is not None and not known else "",
        terminated_at=report.ended_at,
        device_id=report.device_id,
    )
    return facts.session(Account(report.account_id, "", tier, disabled=False, created_at=0))
