"""Answers standbys that copy this hub's fold, and knows what each of them has of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from appliance.domain.errors import NotPermitted
from appliance.fleet.accounts.ledger import serve
from appliance.fleet.link.reading import read
from appliance.fleet.reports.copy_messages import CopiedNodes, CopyRequest, ToldNode
from appliance.fleet.reports.reports import ReportedWindows
from appliance.store.queries import fleet_fold, fleet_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from appliance.domain.windows import Windows
    from appliance.fleet.link.wire import HubLink
    from appliance.fleet.reports.fold_answers import FoldAnswers
    from appliance.fleet.reports.reports import ToldReport, UsageAnswer, UsageRequest
    from appliance.store.database import Store


class FoldCopies:
    """Reads the store. `standbys`: returns the ids of those that the fleet has now."""

    def __init__(self, store: Store, answers: FoldAnswers, standbys: Callable[[], Collection[str]]) -> None:
        self._store = store
        self._answers = answers
        self._standbys = standbys
        self._has: dict[str, Mapping[str, int]] = {}  # of each standby, as last told

    async def listen(self, link: HubLink) -> None:
        """Begins to answer. Raises what `subscribe` does."""
        await serve(link, "copy", self.answer)

    async def are_whole(self, node: str) -> bool:
        """Tells whether all standbys have all that the exit has told. Raises StoreUnavailable."""
        async with self._store.read() as db:
            last = await fleet_fold.last_batch(db, node)
        return last is None or all(self._has.get(each, {}).get(node, -1) >= last[0] for each in self._standbys())

    async def answer(self, sender: str, data: bytes) -> bytes:
        """Answers one request. Raises FleetError, StoreUnavailable, or Unreadable: it is none."""
        if sender not in self._standbys():
            raise NotPermitted("only a standby copies what the hub was told")
        asked = read(data, CopyRequest)
        if not asked.node:
            self._has[sender] = asked.has
            return msgspec.json.encode(await self._nodes())
        if asked.usage is None:
            return msgspec.json.encode(await self._answers.digest_of(asked.node))
        return msgspec.json.encode(await self._page(asked.node, asked.usage))

    async def _nodes(self) -> CopiedNodes:
        async with self._store.read() as db:
            return CopiedNodes(tuple(ToldNode(*each) for each in await fleet_fold.nodes(db)))

    async def _page(self, node: str, asked: UsageRequest) -> UsageAnswer:
        page = await self._answers.page(node, asked)
        accounts = {each.report.account_id for each in page.sessions}
        async with self._store.read() as db:
            windows = await fleet_windows.on_node(db, node, accounts)
        return msgspec.structs.replace(page, sessions=tuple(_with_windows(each, windows) for each in page.sessions))


def _with_windows(told: ToldReport, windows: Mapping[str, tuple[int, Windows]]) -> ToldReport:
    """Adds the windows of the session's account where it was told of as late as they were."""
    batch, found = windows.get(told.report.account_id, (0, None))
    if found is None or told.report.batch < batch:
        return told
    return msgspec.structs.replace(told, report=msgspec.structs.replace(told.report, windows=ReportedWindows.of(found)))
