"""Shows sessions as their exits have reported them to the hub: of exits that are away, or have left."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from appliance.domain.entities import Account, Reason, State
from appliance.domain.errors import NotAnswered
from appliance.domain.tiers import Tier
from appliance.fleet import away, ledger
from appliance.fleet.elsewhere import Folded
from appliance.fleet.facts import SessionFacts
from appliance.fleet.operations import Place  # noqa: TC001 (msgspec reads annotations at run time)
from appliance.fleet.sync_messages import LedgerRefusal
from appliance.fleet.wire import PREFIX

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from appliance.domain.entities import Session
    from appliance.fleet.away import FoldedSession
    from appliance.fleet.wire import HubLink
    from appliance.store.database import Store

T = TypeVar("T")

ANSWER_S = 1.0
READ_AT_ONCE = 200
NEWEST: tuple[int, str] = (2**62, "\U0010ffff")  # no session stands above it


class AskedReported(msgspec.Struct, frozen=True, omit_defaults=True):
    """Asks for one session by its id, or for up to `limit` of an account's that these exits have reported."""

    id: str = ""
    account_id: str = ""
    nodes: tuple[str, ...] = ()
    live: bool = False
    before: Place | None = None
    limit: int = 1


class ReportedSession(msgspec.Struct, frozen=True):
    """Holds a session, and the exit and the account that it is of."""

    node: str
    account_id: str
    session: SessionFacts


class ReportedSessions(msgspec.Struct, frozen=True, tag="reported"):
    """Answers with sessions, the largest (created_at, id) first."""

    sessions: list[ReportedSession]


def facts_of(folded: FoldedSession) -> SessionFacts:
    """Returns what an API shows of a session. One that an admin ended in words of their own has those as its reason."""
    report, ending = folded.report, folded.reason
    reason = None if ending is None else Reason(ending) if ending in set(Reason) else Reason.ADMIN
    rates = next((line.rates for line in reversed(report.lines) if line.rates is not None), None)
    tier = Tier(report.tier) if report.tier in set(Tier) else Tier.FREE
    return SessionFacts(
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
        reason=reason,
        told=ending if reason is Reason.ADMIN and ending is not None and ending not in set(Reason) else "",
        terminated_at=report.ended_at,
        device_id=report.device_id,
    )


class ReportedDesk:
    """Answers the exits, on a hub."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def listen(self, link: HubLink) -> None:
        """Begins to answer. Raises what `subscribe` does."""
        await ledger.serve(link, "reported", self.answer)

    async def answer(self, _sender: str, data: bytes) -> bytes:
        """Answers one request. Raises msgspec.MsgspecError: it is none; StoreUnavailable."""
        asked = msgspec.json.decode(data, type=AskedReported)
        found = await (self._one(asked.id) if asked.id else self._page(asked))
        return msgspec.json.encode(ReportedSessions([_reported(each) for each in found]))

    async def _one(self, session_id: str) -> list[FoldedSession]:
        async with self._store.read() as db:
            found = await away.folded(db, session_id)
        return [] if found is None else [found]

    async def _page(self, asked: AskedReported) -> list[FoldedSession]:
        place, found = asked.before or NEWEST, list[away.FoldedSession]()
        async with self._store.read() as db:
            while len(found) < asked.limit:
                page = await away.folded_of_account(db, asked.account_id, place, READ_AT_ONCE)
                found += [each for each in page if each.node in asked.nodes and _shown(each, live=asked.live)]
                if len(page) < READ_AT_ONCE:
                    break
                place = (page[-1].report.created_at, page[-1].id)
        return found[: asked.limit]


def _shown(folded: FoldedSession, *, live: bool) -> bool:
    return not live or folded.state == State.LIVE.value


def _reported(folded: FoldedSession) -> ReportedSession:
    return ReportedSession(folded.node, folded.report.account_id, facts_of(folded))


class HubReports:
    """Implements Folds (elsewhere.py) by asking the hub."""

    def __init__(self, link: HubLink, own_id: str) -> None:
        self._link = link
        self._subject = f"{PREFIX}.led.{own_id}.reported"

    async def session(self, session_id: str) -> Folded | None:
        """Returns a session of any account; None: no exit has reported it. Raises FleetError."""
        found = await self._ask(AskedReported(id=session_id))
        return next((Folded(each.node, _session(each)) for each in found), None)

    async def page(
        self, account_id: str, node_ids: Collection[str], *, live: bool, before: Place | None, limit: int
    ) -> Sequence[Session]:
        """Returns up to `limit` of the account's sessions on these exits below `before`. Raises FleetError."""
        if not node_ids:
            return []
        asked = AskedReported(account_id=account_id, nodes=tuple(node_ids), live=live, before=before, limit=limit)
        return [_session(each) for each in await self._ask(asked)]

    async def _ask(self, asked: AskedReported) -> list[ReportedSession]:
        data = await self._link.request(self._subject, msgspec.json.encode(asked), ANSWER_S)
        try:
            answer = msgspec.json.decode(data, type=ReportedSessions | LedgerRefusal)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise NotAnswered(f"the hub's answer is not understood: {error}") from error
        if isinstance(answer, LedgerRefusal):
            raise NotAnswered(f"the ledger: {answer.error}")
        return answer.sessions


def _session(reported: ReportedSession) -> Session:
    facts = reported.session
    account = Account(reported.account_id, "", facts.account_tier, disabled=False, created_at=0)
    return facts.session(account)
