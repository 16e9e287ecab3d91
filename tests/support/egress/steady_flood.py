"""A client that goes on sending packets, thousands a second, while something happens to the exit."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from tests.support.egress.capture import send

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.egress.vantage import Inside

PER_SECOND = 4000
BURST = 40


class Flood:
    """Sends these packets in turn, from its beginning to its end."""

    def __init__(self, client: Inside, packets: Sequence[bytes]) -> None:
        self._client = client
        self._packets = packets
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.sent = 0

    def _send(self) -> None:
        while not self._ended.wait(BURST / PER_SECOND):
            chosen = [self._packets[(self.sent + n) % len(self._packets)] for n in range(BURST)]
            send(self._client.space, self._client.interface, *chosen)
            self.sent += BURST

    def goes_on(self, packets: int, seconds: float = 90) -> None:
        """So many more have been sent."""
        until, deadline = self.sent + packets, time.monotonic() + seconds
        while self.sent < until:
            assert time.monotonic() < deadline, "the client does not send"
            time.sleep(0.01)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
