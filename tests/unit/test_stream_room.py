"""Room in a stream of reports: what is folded goes, in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from appliance.fleet.link.stream_pages import Streamed
from appliance.fleet.reports.reports import SessionReport
from appliance.fleet.reports.stream_room import StreamRoom

if TYPE_CHECKING:
    from collections.abc import Iterable

NODE = "nod_" + "a" * 24
LIVE = msgspec.json.encode(
    SessionReport(3, "ab", 0, 7, "cd", 1_790_000_000_000, 2, 3, 1000, "live", "acc_1", "paid", "x")
)


class OneStream:
    """Holds live sessions' messages alone. `full`: from 0 to 1."""

    def __init__(self, full: float) -> None:
        self.full = full
        self.kept = {number: f"wga.state.{NODE}.s.ses_{number}.0-ab" for number in range(1, 4)}
        self.looked = 0

    async def read(self, _node: str, after: int, _most: int) -> list[Streamed]:
        self.looked += 1
        return [Streamed(number, subject, LIVE, 0) for number, subject in self.kept.items() if number > after]

    async def fullness(self, _node: str) -> float:
        return self.full

    async def drop(self, _node: str, sequences: Iterable[int]) -> None:
        for each in sequences:
            del self.kept[each]


def test_a_stream_that_fills_up_soon_after_a_look_has_room_at_once() -> None:
    """Half full of live sessions it is looked through once a minute; nearly full, they go whenever that was."""

    async def story() -> None:
        stream = OneStream(0.6)
        room = StreamRoom(stream, lambda _node: 3)  # type: ignore[arg-type]  # what it calls
        await room.make(NODE)
        looked = stream.looked
        await room.make(NODE)
        assert (stream.looked, len(stream.kept)) == (looked, 3)
        stream.full = 0.95
        await room.make(NODE)
        assert stream.kept == {}

    asyncio.run(story())
