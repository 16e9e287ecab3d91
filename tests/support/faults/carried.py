"""When each peer's tunnel could carry: what nobody may be billed more than, and what of it has to be billed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Set

    from tests.support.faults.host import Host

LOOKS_APART_MS = 2000  # at most, where nothing fails


@dataclass(frozen=True, slots=True)
class Shake:
    """A handshake. From `from_ms` until `until_ms` (ran_ms) the tunnel could carry, or is known to have."""

    seen_ns: int
    from_ms: int
    until_ms: int


class Carried:
    """By public key. `true` begins with each handshake; what is `known` with the first dump that showed it."""

    def __init__(self, host: Host, reject_after_ms: int) -> None:
        self._host = host
        self._reject_after_ms = reject_after_ms
        self._true: defaultdict[bytes, list[Shake]] = defaultdict(list)
        self._known: defaultdict[bytes, list[Shake]] = defaultdict(list)
        self._once_known: dict[tuple[bytes, int], int] = {}  # until when, by key and handshake
        self._ever_missed: set[bytes] = set()
        self._missed: set[bytes] = set()  # by the last dump: what the next one shows may only have been compared

    def shaken(self, key: bytes, seen_ns: int) -> None:
        now = self._host.ran_ms
        self._true[key].append(Shake(seen_ns, now, now + self._reject_after_ms))

    def at_the_latest_heartbeat(self, key: bytes, seen_ns: int, beat_at: int) -> None:
        """A device's handshake that is shown for the first time may be taken to have been at the last heartbeat, where
        the wall clock does not tell when it was."""
        if self._host.stepped:
            self._true[key] = [
                replace(shake, from_ms=min(shake.from_ms, beat_at)) if shake.seen_ns == seen_ns else shake
                for shake in self._true[key]
            ]

    def shown(self, key: bytes, seen_ns: int, beat_at: int) -> None:
        """A dump shows the last handshake of a peer. Where the wall clock was ever set, it may be long before."""
        known = self._known[key]
        if key in self._ever_missed and all(shake.seen_ns != seen_ns for shake in known):
            self._count_from_heartbeat(key, seen_ns, beat_at)
        if key in self._missed:
            self._missed.discard(key)
            return
        if any(shake.seen_ns == seen_ns for shake in known) or (self._host.stepped and key in self._ever_missed):
            return
        began = next((shake.from_ms for shake in self._true[key] if shake.seen_ns == seen_ns), None)
        if began is not None:
            booted_at = self._host.booted_at
            if beat_at <= max(0, booted_at):
                began = booted_at  # no heartbeat of this boot proves anything
            elif self._host.stepped:
                # Somewhere since the last look that this peer was the same for, which may be older than the heartbeat.
                began = min(began, beat_at - LOOKS_APART_MS)
            # What an earlier process has stored of it, with the heartbeat that it had, stays so.
            until = began + self._reject_after_ms
            until = self._once_known[key, seen_ns] = min(until, self._once_known.get((key, seen_ns), until))
            known.append(Shake(seen_ns, self._host.ran_ms, until))

    def _count_from_heartbeat(self, key: bytes, seen_ns: int, beat_at: int) -> None:
        """A dump that was cut short has hidden a handshake, and a heartbeat was stored: it counts from there."""
        self._true[key] = [
            replace(shake, until_ms=max(shake.until_ms, beat_at + self._reject_after_ms))
            if shake.seen_ns == seen_ns and shake.from_ms <= beat_at
            else shake
            for shake in self._true[key]
        ]

    def not_shown(self, key: bytes, beat_at: int) -> None:
        """What dumps showed since the last reading that was committed is not in the next one."""
        self._missed.add(key)
        self._ever_missed.add(key)
        self._forget(key, beat_at)

    def forgotten(self, beat_at: int, counted: Set[bytes]) -> None:
        """The process is another one: it finds again what is not stored, if it is still shown. `counted`: the keys of
        sessions, of which all is stored that was known at the last heartbeat."""
        for key in self._known:
            self._forget(key, beat_at if key in counted else 0)

    def _forget(self, key: bytes, beat_at: int) -> None:
        self._known[key] = [shake for shake in self._known[key] if shake.from_ms < beat_at]

    def gone(self, key: bytes, beat_at: int) -> None:
        """The peer is gone: what is known counts up to the last heartbeat."""
        self._known[key] = [replace(shake, until_ms=min(shake.until_ms, beat_at)) for shake in self._known[key]]

    def went_down(self) -> None:
        """The host goes down, and with it all tunnels."""
        now = self._host.ran_ms
        for key, shakes in self._true.items():
            self._true[key] = [replace(shake, until_ms=min(shake.until_ms, now)) for shake in shakes]

    def has_shaken(self, key: bytes, seen_ns: int) -> bool:
        return any(shake.seen_ns == seen_ns for shake in self._true[key])

    def known_until(self, key: bytes, seen_ns: int) -> int | None:
        """Until when it is known that this handshake lets the tunnel carry; None: nothing is known of it."""
        return next((shake.until_ms for shake in self._known[key] if shake.seen_ns == seen_ns), None)

    def most(self, key: bytes, from_ms: int, until_ms: int) -> int:
        """How much of a time the tunnel could carry."""
        return _union(self._true[key], from_ms, until_ms)

    def least(self, key: bytes, from_ms: int, until_ms: int, beat_at: int) -> int:
        """How much of it is known by what is committed."""
        return _union((shake for shake in self._known[key] if shake.from_ms < beat_at), from_ms, until_ms)


def _union(shakes: Iterable[Shake], from_ms: int, until_ms: int) -> int:
    total, done = 0, from_ms
    for shake in sorted(shakes, key=lambda shake: shake.from_ms):
        begin, end = max(shake.from_ms, done), min(shake.until_ms, until_ms)
        if end > begin:
            total, done = total + end - begin, end
    return total
