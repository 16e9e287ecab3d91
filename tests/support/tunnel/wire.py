"""What truly passed on the exit's side of its tunnel, counted by the firewall and by watching."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from tests.support.tunnel.appliance_process import Transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.tunnel.namespace import Namespace

PORT = 51820
UDP_OVER_IPV4 = 28  # bytes a packet: the IPv4 and the UDP header

_COUNTERS = f"""
table inet wire {{
  counter received {{ }}
  counter sent {{ }}
  chain input {{
    type filter hook input priority 0;
    udp dport {PORT} counter name received
  }}
  chain output {{
    type filter hook output priority 0;
    udp sport {PORT} counter name sent
  }}
}}
"""


class Wire:
    """Counts WireGuard's own messages on an exit with one client, whatever becomes of the interface.

    A peer's counters hold the length of every message that was sent, and of every one received that was genuine.
    So the wire's are never less than theirs: one lost with its interface is counted here and not there.
    """

    def __init__(self, exit_space: Namespace) -> None:
        self._space = exit_space
        exit_space.run("nft", "-f", "-", text_input=_COUNTERS)

    def transfer(self) -> Transfer:
        return Transfer(received=self._messages("received"), sent=self._messages("sent"))

    def _messages(self, counter: str) -> int:
        words = self._space.run("nft", "list", "counter", "inet", "wire", counter).stdout.split()
        packets, length = (int(words[words.index(name) + 1]) for name in ("packets", "bytes"))
        return length - UDP_OVER_IPV4 * packets


class Speed:
    """Watches a growing number from a thread, to tell the most it grew in a second."""

    EVERY_S = 0.02
    SPAN_S = 0.2  # short: a transfer at full speed may be over in less than a second

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._samples: list[tuple[float, int]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def peak(self) -> int:
        """Ends the watch. In bytes per second, over the fastest stretch of SPAN_S."""
        self._done.set()
        self._thread.join(timeout=10)
        best, first = 0.0, 0
        for when, value in self._samples:
            while when - self._samples[first][0] > self.SPAN_S:
                since, before = self._samples[first]
                best = max(best, (value - before) / (when - since))
                first += 1
        return int(best)

    def _watch(self) -> None:
        while not self._done.wait(self.EVERY_S):
            self._samples.append((time.monotonic(), self._read()))
