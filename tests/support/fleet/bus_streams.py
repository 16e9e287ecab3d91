"""The streams of the hub that `bus` plays, as the fold reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.errors import CutOff, NoResponder
from appliance.fleet.link.stream_pages import Streamed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.fleet.bus import Bus, BusStream

MAX_BYTES = 16 * 1024 * 1024


class BusStreams:
    """One stream a node. `away`: the hub's connection to them is lost."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.away = False
        self.made: dict[str, BusStream] = {}

    async def make(self, node: str) -> None:
        self._check()
        self.made[node] = self.bus.stream(f"STATE_{node}", f"wga.state.{node}.>", MAX_BYTES)

    async def last_sequence(self, node: str) -> int:
        return self._stream(node).sequence

    async def read(self, node: str, after: int, most: int) -> list[Streamed]:
        kept = sorted((sequence, subject, data) for subject, (sequence, data) in self._stream(node).kept.items())
        return [Streamed(*each) for each in kept if each[0] > after][:most]

    async def fullness(self, node: str) -> float:
        return sum(len(data) for _, data in self._stream(node).kept.values()) / self._stream(node).max_bytes

    async def drop(self, node: str, sequences: Iterable[int]) -> None:
        gone, stream = set(sequences), self._stream(node)
        stream.kept = {subject: each for subject, each in stream.kept.items() if each[0] not in gone}

    async def nodes(self) -> list[str]:
        self._check()
        return list(self.made)

    async def remove(self, node: str) -> None:
        self._check()
        self.bus.remove_stream(f"STATE_{node}")
        self.made.pop(node, None)

    def wipe(self, node: str) -> None:
        """The stream's disk is lost; another one is made in its place."""
        self.bus.remove_stream(f"STATE_{node}")
        self.made[node] = self.bus.stream(f"STATE_{node}", f"wga.state.{node}.>", MAX_BYTES)

    def image(self, node: str) -> tuple[int, dict[str, tuple[int, bytes]]]:
        return self._stream(node).sequence, dict(self._stream(node).kept)

    def roll_back(self, node: str, image: tuple[int, dict[str, tuple[int, bytes]]]) -> None:
        stream = self._stream(node)
        stream.sequence, stream.kept = image[0], dict(image[1])

    def _stream(self, node: str) -> BusStream:
        self._check()
        if node not in self.made:
            raise NoResponder("there is no such stream")
        return self.made[node]

    def _check(self) -> None:
        if self.away:
            raise CutOff("no connection to the streams")
