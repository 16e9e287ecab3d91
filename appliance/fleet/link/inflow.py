"""Bounds what this host takes from each other member, before it costs more than being read. Pure.

What one member sends, to all or to this host, would else keep the event loop from all that it has to do.
"""

from __future__ import annotations

# Messages of one member: at once, and in each second. Beats that were held up come all at once.
OF_BEATS = 500.0, 50.0
OF_OTHERS = 4000.0, 2000.0
KNOWN = 1024  # members and what they send, that are remembered


class Inflow:
    """Counts by member, for one connection."""

    def __init__(self) -> None:
        self._left: dict[tuple[bytes, bytes], tuple[float, float]] = {}  # how many more, as of when
        self.dropped = 0

    def takes(self, subject: bytes, now_s: float) -> bool:
        """Tells whether to take a message that came now, by a clock that is never set. Answers are always taken."""
        fields = subject.split(b".", 4)
        if fields[0] != b"wga" or len(fields) < 3:
            return True
        kind = fields[1]
        sender = fields[3] if kind == b"rpc" and len(fields) > 3 else fields[2]
        most, per_s = OF_BEATS if kind == b"hb" else OF_OTHERS
        left, at_s = self._left.get((kind, sender), (most, now_s))
        left = min(most, left + (now_s - at_s) * per_s)
        taken = left >= 1
        if len(self._left) >= KNOWN:
            self._left.clear()
        self._left[kind, sender] = left - taken, now_s
        self.dropped += not taken
        return taken
