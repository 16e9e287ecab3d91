"""A ping that runs beside the test and tells which of its packets were lost."""

from __future__ import annotations

import re
import signal
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.tunnel.namespace import Namespace

EVERY_S = 0.05
_ANSWER = re.compile(r"bytes from .*icmp_seq=(\d+) ")  # ping(8) writes a line as each answer comes
_SUMMARY = re.compile(r"(\d+) packets transmitted, (\d+) received")


@dataclass(frozen=True, slots=True)
class Pinged:
    """`outages`: how many packets were lost in a row, each time that any were; without the one that the test caused."""

    sent: int
    outages: list[int]


def outages(answered: Sequence[int], disturbed: tuple[int, int] | None = None) -> list[int]:
    """Counts the packets lost between those answered, in rising order, for each time that any were.

    `disturbed`: the latest packets answered before and after the test cut the client off itself. What was lost then is
    left out where an outage was over by that time; else it is that outage, going on.
    """
    gaps = [(earlier, later) for earlier, later in pairwise([0, *answered]) if later - earlier > 1]
    if disturbed is not None:
        first, last = disturbed
        own = next((gap for gap in gaps if first <= gap[0] <= last), None)
        if own is not None and any(later <= first for _, later in gaps):
            gaps.remove(own)
    return [later - earlier - 1 for earlier, later in gaps]


class Ping:
    """One echo request each EVERY_S. Packets have the numbers 1, 2, ..."""

    def __init__(self, space: Namespace, address: str, path: Path) -> None:
        self._path = path
        self._disturbed: tuple[int, int] | None = None
        with path.open("wb") as out:
            self._ping = space.start("ping", "-n", "-i", str(EVERY_S), address, stdout=out, stderr=out)

    def answered(self) -> int:
        """The number of the latest packet that was answered, 0 before the first."""
        return max(self._answers(), default=0)

    def goes_on(self, packets: int) -> None:
        """Wait until so many further packets are answered."""
        wanted = self.answered() + packets
        until(lambda: self.answered() >= wanted, f"{packets} packets more are answered")

    @contextmanager
    def disturbed(self) -> Iterator[None]:
        """The test cuts the client off meanwhile, once; returns when packets are answered again."""
        before = self.answered()
        yield
        self.goes_on(1)
        self._disturbed = (before, self.answered())

    def stop(self) -> Pinged:
        """SIGINT. What was sent after the last packet that was answered was under way, and is not counted."""
        self._ping.send_signal(signal.SIGINT)
        self._ping.wait(timeout=60)
        text, answers = self._path.read_text(encoding="utf-8"), sorted(self._answers())
        summary = _SUMMARY.search(text)
        assert summary is not None, text
        sent, received = int(summary[1]), int(summary[2])
        under_way = sent - answers[-1]
        assert sent - received == sum(outages(answers)) + under_way, text
        return Pinged(sent - under_way, outages(answers, self._disturbed))

    def kill(self) -> None:
        """Whatever happened, no process is left."""
        with suppress(ProcessLookupError):
            self._ping.kill()
        self._ping.wait(timeout=60)

    def _answers(self) -> set[int]:
        return {int(number) for number in _ANSWER.findall(self._path.read_text(encoding="utf-8"))}
