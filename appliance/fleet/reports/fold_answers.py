"""Answers what exits ask a hub about its fold: a digest of their reports, and the reports themselves."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import astuple

from appliance.domain.errors import FleetError, StoreUnavailable
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.link.wire import PREFIX
from appliance.fleet.reports.reports import Digest, SessionReport, Sums, ToldReport, UsageAnswer, UsageRequest
from appliance.store.queries import fleet_fold

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from appliance.fleet.link.wire import HubLink, Message
    from appliance.fleet.reports.fold import Fold
    from appliance.store.database import Store

QUEUE = "ledger"
MOST_BYTES = 120_000  # of an answer
MOST_SESSIONS = 200
OF_ONE_AT_WORK = 2  # of one exit's requests: each reads up to all that it has reported

log = logging.getLogger(__name__)


class FoldAnswers:
    """Answers nodes that are in the fleet. The node is in the subject, which its rights bind it to."""

    def __init__(self, store: Store, fold: Fold, is_member: Callable[[str], bool]) -> None:
        self._store = store
        self._fold = fold
        self._is_member = is_member
        self._turns = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(OF_ONE_AT_WORK))
        self._failed = 0

    async def listen(self, link: HubLink) -> None:
        """Raises FleetError."""
        await link.subscribe(f"{PREFIX}.led.*.digest", self.digest, QUEUE)
        await link.subscribe(f"{PREFIX}.led.*.usage", self.usage, QUEUE)

    async def digest(self, message: Message) -> None:
        await self._answer(message, self._digest)

    async def usage(self, message: Message) -> None:
        await self._answer(message, self._usage)

    async def _answer(self, message: Message, make: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        """Answers once all is folded that the stream has: what the node was acknowledged is in the answer.

        No answer is one too: the node asks again.
        """
        node = message.subject.split(".")[2]
        if not self._is_member(node) or not message.reply:
            return
        try:
            async with self._turns[node]:
                await self._fold.catch_up(node)
                answer = await make(node, message.data)
            await message.answer(answer)
        except (FleetError, StoreUnavailable, Unreadable) as error:
            self._failed += 1
            if self._failed.bit_count() == 1:  # the 1st, 2nd, 4th, 8th…
                log.warning("%s is not answered on %s, the %d.: %r", node, message.subject, self._failed, error)

    async def _digest(self, node: str, _: bytes) -> bytes:
        return msgspec.json.encode(await self.digest_of(node))

    async def _usage(self, node: str, data: bytes) -> bytes:
        return msgspec.json.encode(await self.page(node, read(data, UsageRequest)))

    async def digest_of(self, node: str) -> Digest:
        """Returns the sums of what the node has told. Raises StoreUnavailable."""
        async with self._store.read() as db:
            last = await fleet_fold.last_batch(db, node)
            months = await fleet_fold.months(db, node)
        sums = {month: Sums(*astuple(each)) for month, each in months.items()}
        number, mark = last or (None, "")
        return Digest(number, mark, sums)

    async def page(self, node: str, asked: UsageRequest) -> UsageAnswer:
        """Returns a page of what the node has told of its sessions. Raises StoreUnavailable."""
        async with self._store.read() as db:
            if asked.month is not None:
                said = await fleet_fold.said_of_month(db, node, asked.month, asked.after, MOST_SESSIONS)
            else:
                said = await fleet_fold.said_after_batch(db, node, asked.batch, asked.after, MOST_SESSIONS)
        page, size = list[ToldReport](), 0
        for each in said:
            size += len(each.said) + len(each.session_id) + 40
            if page and size > MOST_BYTES:
                break
            page.append(ToldReport(each.session_id, msgspec.json.decode(each.said, type=SessionReport)))
        more = len(page) < len(said) or len(said) == MOST_SESSIONS
        return UsageAnswer(tuple(page), more)
