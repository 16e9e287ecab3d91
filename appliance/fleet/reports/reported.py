"""Tells what exits have reported of an account's sessions: a hub knows, others ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from appliance.domain.errors import ApplianceError, FleetError, NoResponder, NotAnswered, SessionNotFound
from appliance.fleet.accounts.caller import token_of
from appliance.fleet.rpc.facts import SessionFacts
from appliance.fleet.rpc.operations import (
    REPORTED,
    REPORTED_LIST,
    REPORTED_USE,
    OneOfAccount,
    ReportedOfAccount,
    ReportedSession,
    ReportedUse,
    SessionsOf,
    UsageOfAccount,
    WindowsHere,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from appliance.domain.clock import Clock
    from appliance.domain.entities import Account, Session
    from appliance.domain.fleet_use import ExitWindows
    from appliance.fleet.accounts.accounts_here import AccountsHere
    from appliance.fleet.rpc.exits import Exits
    from appliance.fleet.rpc.operations import Place

ONE_S, LIST_S = 2.0, 1.0


class Folded(NamedTuple):
    """Holds a session as its exit has reported it last. All its time is counted."""

    node_id: str
    session: Session


class Folds(Protocol):
    """Has what exits have reported to this hub. Each method raises FleetError or StoreUnavailable."""

    async def session(self, session_id: str) -> Folded | None:
        """Returns a session of any account; None: no exit has reported it."""
        ...

    async def page(
        self, account_id: str, node_ids: Collection[str], *, live: bool, before: Place | None, limit: int
    ) -> Sequence[Session]:
        """Returns up to `limit` of the account's sessions on these exits and on those that have left the fleet,
        the largest (created_at, id) first, of those below `before`."""
        ...

    async def windows(self, account_id: str) -> Sequence[ExitWindows]:
        """Returns the account's windows on each exit that has ever reported some."""
        ...


class Reported(Protocol):
    """Tells the account's sessions as they were reported. Each method raises FleetError: no hub has told in time."""

    async def session(self, account: Account, session_id: str) -> Folded | None:
        """Returns a session; None: no exit has reported it. Raises SessionNotFound: it is another account's."""
        ...

    async def page(
        self, account: Account, node_ids: Collection[str], *, live: bool, before: Place | None, limit: int
    ) -> Sequence[Session]:
        """Returns sessions, as Folds.page does."""
        ...

    async def windows(self, account: Account) -> Sequence[ExitWindows]:
        """Returns the account's windows on each exit that has ever reported some."""
        ...


class ReportedHere:
    """Tells it on a hub."""

    def __init__(self, folds: Folds) -> None:
        self._folds = folds

    async def session(self, account: Account, session_id: str) -> Folded | None:
        found = await self._folds.session(session_id)
        if found is not None and found.session.account_id != account.id:
            raise SessionNotFound
        return found

    async def page(
        self, account: Account, node_ids: Collection[str], *, live: bool, before: Place | None, limit: int
    ) -> Sequence[Session]:
        return await self._folds.page(account.id, node_ids, live=live, before=before, limit=limit)

    async def windows(self, account: Account) -> Sequence[ExitWindows]:
        return await self._folds.windows(account.id)


class ReportedByHub:
    """Tells it on an exit that is no hub. `hub_id`: of one that can be asked now; None: there is none."""

    def __init__(self, exits: Exits, hub_id: Callable[[], str | None]) -> None:
        self._exits = exits
        self._hub_id = hub_id

    async def session(self, account: Account, session_id: str) -> Folded | None:
        asked = OneOfAccount(token_of(account), session_id)
        try:
            told = await self._exits.ask(self._hub(), REPORTED, asked, ONE_S)
        except (SessionNotFound, FleetError):
            raise
        except ApplianceError as error:
            raise NotAnswered(f"the hub does not tell of a session: {error}") from error
        return None if told.session is None else Folded(told.node_id, told.session.session(account))

    async def page(
        self, account: Account, node_ids: Collection[str], *, live: bool, before: Place | None, limit: int
    ) -> Sequence[Session]:
        asked = ReportedOfAccount(token_of(account), tuple(node_ids), before, limit, live)
        try:
            told = await self._exits.ask(self._hub(), REPORTED_LIST, asked, LIST_S)
        except FleetError:
            raise
        except ApplianceError as error:
            raise NotAnswered(f"the hub does not list sessions: {error}") from error
        return [each.session(account) for each in told.sessions]

    async def windows(self, account: Account) -> Sequence[ExitWindows]:
        try:
            told = await self._exits.ask(self._hub(), REPORTED_USE, UsageOfAccount(token_of(account)), LIST_S)
        except FleetError:
            raise
        except ApplianceError as error:
            raise NotAnswered(f"the hub does not tell of an account's use: {error}") from error
        return [each.windows for each in told.exits]

    def _hub(self) -> str:
        hub_id = self._hub_id()
        if hub_id is None:
            raise NoResponder("no hub is known")
        return hub_id


class ReportsOwner:
    """Serves other exits' requests for what was reported to this hub."""

    def __init__(self, accounts: AccountsHere, reported: ReportedHere, clock: Clock) -> None:
        self._accounts = accounts
        self._reported = reported
        self._clock = clock

    async def session(self, asked: OneOfAccount) -> ReportedSession:
        """Shows a session. Raises SessionNotFound: it is another account's."""
        found = await self._reported.session(await self._accounts.of_token(asked.token), asked.id)
        if found is None:
            return ReportedSession()
        return ReportedSession(found.node_id, SessionFacts.of(found.session, self._clock.now()))

    async def list(self, asked: ReportedOfAccount) -> SessionsOf:
        """Lists sessions by (created_at, id)."""
        account, now = await self._accounts.of_token(asked.token), self._clock.now()
        limit = max(1, min(asked.limit, 200))
        found = await self._reported.page(account, asked.node_ids, live=asked.live, before=asked.before, limit=limit)
        return SessionsOf([SessionFacts.of(each, now) for each in found])

    async def use(self, asked: UsageOfAccount) -> ReportedUse:
        """Tells the account's windows on each exit."""
        found = await self._reported.windows(await self._accounts.of_token(asked.token))
        return ReportedUse([WindowsHere.of(each) for each in found])
