"""Holds the handshakes that the store does not have yet: when each was found, and until when it lets a tunnel carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from appliance.domain import carrying
from appliance.domain.carrying import Span
from appliance.domain.clock import Moment

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Set

    from appliance.domain.entities import Session
    from appliance.network.wireguard.tunnel import PeerState


def shaken(seen_ns: int, before: Moment, now: Moment, ahead_ms: int, after_ms: int = 0) -> Span:
    """Returns when a handshake was that a dump shows: see `carrying.shaken_between`.

    `ahead_ms`: how far the kernel's wall clock is ahead of `now`, where that is not the one believed.
    """
    return carrying.shaken_between(seen_ns // 1_000_000, before, _by_kernel(now, ahead_ms), after_ms)


def shaken_at(seen_ns: int, known: Moment, now: Moment, ahead_ms: int) -> Span:
    """Returns when a handshake was that may have been before `known` too: see `carrying.shaken_by_clocks`."""
    return carrying.shaken_by_clocks(seen_ns // 1_000_000, known, _by_kernel(now, ahead_ms))


def _by_kernel(now: Moment, ahead_ms: int) -> Moment:
    return Moment(now.wall_ms + ahead_ms, now.boot_ms, now.boot_id)


class Shaken(Struct, frozen=True, gc=False):
    """Holds in which spans a session's tunnel can carry by handshakes that were found, the last one at `seen_ns`."""

    session_id: str
    seen_ns: int
    spans: tuple[Span, ...] = ()


class Handshakes:
    """Finds handshakes. A look shows the last one of each peer, and several looks may pass before one is stored."""

    def __init__(self, reject_after_ms: int) -> None:
        self._reject_after_ms = reject_after_ms
        self._found: dict[bytes, Shaken] = {}
        self._looked = False

    def found(
        self, session: Session, sample: PeerState, before: Moment, now: Moment, ahead_ms: int = 0
    ) -> Shaken | None:
        """Returns what was found since the store was written; None: nothing. `before`: it was after that.

        `ahead_ms`: how far the kernel's wall clock is ahead of `now`, where that is not the one believed.

        A handshake counts from the look that finds it. What the first look finds was while this process was away, and
        counts from when it was, by the kernel's wall clock; where that was set meanwhile, rather too little.
        """
        seen_ns = sample.last_handshake_ns
        if seen_ns in (0, session.handshake_seen_ns):
            return None
        known = self._found.get(session.public_key)
        if known is None or known.session_id != session.id:
            known = Shaken(session.id, 0)
        if known.seen_ns != seen_ns:
            counted_ms = session.counted_until_ms if session.counted_boot_id == now.boot_id else 0
            was = shaken(seen_ns, before, now, ahead_ms, counted_ms)
            span = Span(now.boot_ms if self._looked else was.until_ms, was.from_ms + self._reject_after_ms)
            known = Shaken(session.id, seen_ns, carrying.extended(known.spans, span))
            self._found[session.public_key] = known
        return known

    def public_keys(self) -> Set[bytes]:
        """Returns the keys of the sessions with handshakes that are not stored."""
        return self._found.keys()

    def looked(self) -> bool:
        """Notes that a dump was looked at, the next shows what was meanwhile; returns whether it was the first"""
        first, self._looked = not self._looked, True
        return first

    def forget(self, public_keys: Iterable[bytes], live: Container[bytes]) -> None:
        """Forgets what is stored, or can no longer be, and what is not of the sessions of these keys."""
        for key in public_keys:
            self._found.pop(key, None)
        self._found = {key: found for key, found in self._found.items() if key in live}
