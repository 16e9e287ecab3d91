"""The meter: dump -> deltas -> one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.accounting import read_counters
from appliance.store import sessions as rows

if TYPE_CHECKING:
    from appliance.clock import Clock, Moment
    from appliance.entities import Baseline, Session
    from appliance.live import LiveSessions
    from appliance.store.connection import Store
    from appliance.wireguard.tunnel import Dump, PeerState, Tunnel


class Meter:
    """Reads all counters and commits what changed.

    The caller holds the exit's turn (see `sessions.Sessions`): readings must be committed in the order in
    which they were taken, or an older one would look like a counter that started again.
    """

    def __init__(self, store: Store, tunnel: Tunnel, live: LiveSessions, clock: Clock) -> None:
        self._store = store
        self._tunnel = tunnel
        self._live = live
        self._clock = clock
        self.bytes_in = 0  # billed since the process started
        self.bytes_out = 0

    async def read(self) -> Dump:
        """One dump, billed. Raises TunnelError or StoreUnavailable; nothing is then changed."""
        dump = await self._tunnel.dump()
        now = self._clock.now()
        readings = []
        for key, session in self._live.by_key.items():
            sample = dump.peers.get(key)
            if sample is None:
                continue
            reading = read_session(session, sample, self._live.baselines.get(key), dump.ifindex, now)
            if reading is not None:
                readings.append(reading)
        if readings:
            async with self._store.write() as db:
                await rows.add_readings(db, readings)
            self._live.take(readings)
            self.bytes_in += sum(r.bytes_in for r in readings)
            self.bytes_out += sum(r.bytes_out for r in readings)
        return dump


def read_session(
    session: Session, sample: PeerState, baseline: Baseline | None, ifindex: int, now: Moment
) -> rows.Reading | None:
    """What `sample` adds to `session`, or None where it shows nothing new."""
    counted = read_counters(baseline, sample, boot_id=now.boot_id, ifindex=ifindex)
    shook = sample.last_handshake_ns not in (0, session.handshake_seen_ns)
    if not shook and (counted.baseline == baseline or (baseline is None and sample.rx_bytes == sample.tx_bytes == 0)):
        return None
    return rows.Reading(
        session_id=session.id,
        public_key=session.public_key,
        bytes_in=counted.rx_bytes,
        bytes_out=counted.tx_bytes,
        last_handshake_at=sample.last_handshake_ns // 1_000_000 if shook else session.last_handshake_at,
        handshake_seen_ns=sample.last_handshake_ns if shook else session.handshake_seen_ns,
        quiet_since_ms=now.boot_ms if shook else session.quiet_since_ms,
        quiet_boot_id=now.boot_id if shook else session.quiet_boot_id,
        baseline=counted.baseline,
    )
