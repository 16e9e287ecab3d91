"""Makes room in the hub's streams of reports: drops what is folded.

Exits have what they reported in their own stores: digests find what a fold then lacks.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.reports.reports import SessionReport, session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from appliance.fleet.link.stream_pages import Streamed

AT_ONCE = 500  # messages
# From there on, messages of ended sessions are dropped: exits have them, and digests find what the fold then lacks.
# When it is nearly full of live ones, those too: a full stream takes nothing, not even that a session has ended.
FULL, NEARLY = 0.5, 0.9
NO_ROOM_S = 60.0  # until a stream is looked through again of which nothing could be dropped


class Streams(Protocol):
    """Reads the streams of exits' reports, one an exit. Each method raises FleetError."""

    async def make(self, node: str) -> None:
        """Makes the node's stream, unless it is there."""
        ...

    async def last_sequence(self, node: str) -> int:
        """Returns the sequence of the last message that the stream got; 0: it has had none."""
        ...

    async def read(self, node: str, after: int, most: int) -> Sequence[Streamed]:
        """Returns up to `most` messages with a higher sequence than `after`, in order; none: there are no more."""
        ...

    async def fullness(self, node: str) -> float:
        """Returns how full the stream is, from 0 to 1."""
        ...

    async def drop(self, node: str, sequences: Iterable[int]) -> None:
        """Removes messages."""
        ...

    async def nodes(self) -> Sequence[str]:
        """Returns whose streams there are."""
        ...

    async def remove(self, node: str) -> None:
        """Removes a stream, with all that it holds."""
        ...


class StreamRoom:
    """Drops messages. `read_up_to`: returns up to which sequence a node's stream is folded."""

    def __init__(self, streams: Streams, read_up_to: Callable[[str], int]) -> None:
        self._streams = streams
        self._read_up_to = read_up_to
        self._no_room: dict[str, float] = {}  # when to look again for what can be dropped

    async def make(self, node: str) -> None:
        """Drops the oldest messages that are folded from a stream that is getting full. Raises FleetError."""
        now_s = asyncio.get_running_loop().time()
        fullness = await self._streams.fullness(node)
        looks = now_s >= self._no_room.get(node, 0.0)
        if fullness < FULL or (looks and await self.drop_ended(node, None)):
            return
        if fullness >= NEARLY:
            await self._drop(node, lambda _message: True)
        elif looks:
            self._no_room[node] = now_s + NO_ROOM_S

    async def drop_ended(self, node: str, before_ms: int | None) -> bool:
        """Drops some of the oldest messages of ended sessions that are folded. Returns whether there were any.

        `before_ms`: those alone that the stream got before then, by the wall clock. Raises FleetError.
        """
        return await self._drop(
            node, lambda each: (before_ms is None or each.at_ms < before_ms) and _is_of_ended(each, node)
        )

    async def _drop(self, node: str, may_go: Callable[[Streamed], bool]) -> bool:
        """Drops those that may go of the first page that has such."""
        at = 0
        while at < self._read_up_to(node):
            page = await self._streams.read(node, at, AT_ONCE)
            folded = [m for m in page if m.sequence <= self._read_up_to(node)]
            gone = [m.sequence for m in folded if may_go(m)]
            if gone:
                await self._streams.drop(node, gone)
                return True  # the others wait for the next look
            if not folded:
                return False
            at = folded[-1].sequence
        return False


def _is_of_ended(message: Streamed, node: str) -> bool:
    if session_of(message.subject, node) is None:
        return False
    try:
        return read(message.data, SessionReport).state == "terminated"
    except Unreadable:
        return True  # nor is it of use to anyone
