"""The sessions whose peers the tunnel should hold, in memory: the store's unfinished rows and their baselines.

Changed only after the store has committed the same change.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.entities import Baseline, Session, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from appliance.clock import Moment
    from appliance.store.sessions import Reading


class LiveSessions:
    """Live and closing sessions by public key, which no two of them share. Pending ones are not here."""

    def __init__(self) -> None:
        self.by_key: dict[bytes, Session] = {}
        self.baselines: dict[bytes, Baseline] = {}

    def load(self, sessions: Iterable[Session], baselines: Mapping[bytes, Baseline]) -> None:
        self.by_key = {s.public_key: s for s in sessions if s.state in (State.LIVE, State.CLOSING)}
        self.baselines = {key: b for key, b in baselines.items() if key in self.by_key}

    def __len__(self) -> int:
        return len(self.by_key)

    def put(self, session: Session) -> None:
        self.by_key[session.public_key] = session

    def drop(self, session: Session) -> None:
        """The peer is gone, its baseline with it. A session that took over the same key stays."""
        if self.by_key.get(session.public_key) == session:
            del self.by_key[session.public_key]
            self.baselines.pop(session.public_key, None)

    def take(self, readings: Iterable[Reading]) -> None:
        """What the store has just added to totals and baselines."""
        for r in readings:
            session = self.by_key[r.public_key]
            self.by_key[r.public_key] = replace(
                session,
                bytes_in=session.bytes_in + r.bytes_in,
                bytes_out=session.bytes_out + r.bytes_out,
                last_handshake_at=r.last_handshake_at,
                handshake_seen_ns=r.handshake_seen_ns,
                quiet_since_ms=r.quiet_since_ms,
                quiet_boot_id=r.quiet_boot_id,
            )
            self.baselines[r.public_key] = r.baseline

    def reinstall(self, public_keys: Iterable[bytes], now: Moment) -> None:
        """These peers are about to be added afresh: counters from zero, idleness from now."""
        for key in public_keys:
            self.baselines.pop(key, None)
            self.by_key[key] = replace(self.by_key[key], quiet_since_ms=now.boot_ms, quiet_boot_id=now.boot_id)

    def closing(self) -> list[Session]:
        return [s for s in self.by_key.values() if s.state is State.CLOSING]

    def next_expiry(self) -> int | None:
        """Wall-clock ms at which the next live session ends by itself, if any."""
        return min((s.expires_at for s in self.by_key.values()), default=None)
