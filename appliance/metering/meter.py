"""Meters sessions: dumps peers, computes what moved, commits it in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain import accounting, charges, clock_steps, windows
from appliance.domain.accounting import Reading
from appliance.domain.charges import Amount
from appliance.domain.errors import StoreUnavailable
from appliance.domain.windows import Use
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import invoices
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import aiosqlite

    from appliance.config.plans import Terms
    from appliance.domain.clock import Clock, Moment
    from appliance.domain.entities import Account, Baseline, Session
    from appliance.network.wireguard.tunnel import Dump, PeerState, Tunnel
    from appliance.store.database import Store
    from appliance.store.live import LiveSessions

# Session time is derived from the clock at any moment; it is written with the bytes, and at least this often.
TIME_WRITTEN_EVERY_MS = 60_000


@dataclass(frozen=True, slots=True)
class Count:
    """Holds readings, with the sessions and accounts updated by them; not yet stored."""

    readings: Sequence[Reading]
    sessions: Mapping[bytes, Session]  # by public key
    accounts: Mapping[str, Account]


@dataclass(frozen=True, slots=True)
class Observation:
    """Holds one dump and what it adds to the last count."""

    dump: Dump
    now: Moment
    count: Count
    total_bytes: int  # of all sessions since the process started, including this observation


class Meter:
    """Reads all counters, and commits what changed.

    Its methods must be called with the exit lock held (`sessions.peer_access`): readings must be committed in the order
    in which they were taken, or an older one would look like a counter that restarted.
    """

    def __init__(self, store: Store, tunnel: Tunnel, live: LiveSessions, terms: Terms, clock: Clock) -> None:
        self._store = store
        self._tunnel = tunnel
        self._live = live
        self._terms = terms
        self._clock = clock
        self._last: Dump | None = None  # the last dump
        self._last_at: Moment | None = None
        # Peers that changed since they were last committed, with the last moment at which they had not.
        self._moved: dict[bytes, Moment | None] = {}
        self._loads = 0  # `live.loads` for which the fields above hold
        self.bytes_in = 0  # billed since the process started
        self.bytes_out = 0

    async def read(self) -> Dump:
        """Dumps the peers and bills what moved. Raises TunnelError or StoreUnavailable."""
        observation = await self.observe()
        await self.commit(observation)
        return observation.dump

    async def observe(self, ending: Collection[bytes] = ()) -> Observation:
        """Dumps the peers and compares them with the last count.

        Reads sessions whose peers changed since they were last committed, those whose time is due to be written, and
        those of the keys in `ending`, for which it is the last time.
        Raises TunnelError if the dump fails; StoreUnavailable if memory is not in sync with the store.
        """
        if not self._live.in_sync:
            # Use missing from memory may already be stored. The next tick reads the store first.
            raise StoreUnavailable
        dump = await self._tunnel.dump()
        now = self._clock.now()
        self._note_moved(dump, now)
        due = self._live.last_counted_by(now.boot_ms - TIME_WRITTEN_EVERY_MS)
        unmoved_until = dict.fromkeys([*due, *ending]) | self._moved
        readings = [*self._readings(unmoved_until, dump, now, ending)]
        total = self.bytes_in + self.bytes_out + sum(r.amount.bytes_in + r.amount.bytes_out for r in readings)
        return Observation(dump, now, self._count(readings), total)

    def _note_moved(self, dump: Dump, now: Moment) -> None:
        if self._loads != self._live.loads:
            # Memory was reloaded from the store: which changes it has counted is unknown.
            self._last, self._last_at, self._moved, self._loads = None, None, {}, self._live.loads
        for key in dump.changed_since(self._last):
            self._moved.setdefault(key, self._last_at)
        self._last, self._last_at = dump, now

    def _readings(
        self, unmoved_until: Mapping[bytes, Moment | None], dump: Dump, now: Moment, ending: Collection[bytes]
    ) -> Iterator[Reading]:
        live = self._live
        for key, quiet in unmoved_until.items():
            session, sample = live.get(key), dump.peers.get(key)
            if session is None or sample is None:
                if session is not None and key in ending:
                    yield _read_time(session, upto=now, now=now)
                continue
            if quiet is not None and self._divided(session, quiet, now):
                yield (time := _read_time(session, upto=quiet, now=quiet))
                session = time.after
            reading = read_session(session, sample, live.baseline(key), dump.ifindex, now)
            if reading is not None:
                yield _dated(reading, session, now)
            elif key in ending:
                yield _read_time(session, upto=now, now=now)

    def _divided(self, session: Session, quiet: Moment, now: Moment) -> bool:
        """Tells whether a window or a day ends between the session's last count and now.

        If so, the time before its bytes moved is counted separately, so that the bytes fall into the right interval.
        """
        elapsed = accounting.elapsed_ms(session, now)
        if accounting.elapsed_ms(session, quiet) == 0:
            return False
        account = self._live.owner(session)
        window, length_ms = account.windows.traffic, self._terms.tiers[account.tier].bytes_window * 1000
        return windows.at(window, length_ms, now.wall_ms) != window or (
            (now.wall_ms - elapsed) // charges.DAY_MS != now.wall_ms // charges.DAY_MS
        )

    async def commit(self, observation: Observation) -> None:
        """Commits totals, baselines, windows and invoice lines in one transaction. Raises StoreUnavailable.

        Writes the heartbeat even without live sessions, so that an unwritable store shows before a client connects.
        """
        async with self._live.committing(self._store) as db:
            await self.write_observed(db, observation)
        self.committed(observation)

    async def write_observed(self, db: aiosqlite.Connection, observation: Observation) -> None:
        """Writes the same in the caller's transaction; the caller must call `committed` once it is committed."""
        await self.write(db, observation.count)
        await node_row.write_heartbeat(db, observation.now)

    def committed(self, observation: Observation) -> None:
        """Takes into memory what was written."""
        self._live.note_heartbeat(observation.now)
        self.apply(observation.count)
        self._moved.clear()

    async def catch_up(self) -> None:
        """Counts each session's time after a reboot, up to the last heartbeat before it. Raises StoreUnavailable."""
        now = self._clock.now()
        before = [s for s in self._live if s.counted_boot_id != now.boot_id]
        await self._count_time_until(self._live.heartbeat, before, now)

    async def restart(self, public_keys: Iterable[bytes], seen_until: Moment) -> None:
        """Prepares sessions for re-adding their peers: counters start at zero, idleness counts from now.

        A missing peer cannot be used: time counts up to `seen_until`, the last heartbeat before it was found missing.
        Raises StoreUnavailable.
        """
        now = self._clock.now()
        sessions = [
            replace(self._live[key], quiet_since_ms=now.boot_ms, quiet_boot_id=now.boot_id) for key in public_keys
        ]
        await self._count_time_until(seen_until, sessions, now, forget=[s.public_key for s in sessions])

    async def _count_time_until(
        self, until: Moment, sessions: Sequence[Session], now: Moment, forget: Sequence[bytes] = ()
    ) -> None:
        if not sessions:
            return
        count = self._count([_read_time(s, upto=until, now=now) for s in sessions])
        async with self._live.committing(self._store) as db:
            await self.write(db, count)
            await rows.forget_baselines(db, forget)
        self.apply(count)
        self._live.drop_baselines(forget)

    def count_time(self, sessions: Iterable[Session]) -> Count:
        """Counts the time of these sessions up to now, for the caller that ends them."""
        now = self._clock.now()
        return self._count([_read_time(session, upto=now, now=now) for session in sessions])

    async def write(self, db: aiosqlite.Connection, count: Count) -> None:
        """Writes `count` in the caller's transaction; the caller must call `apply` once it is committed."""
        await rows.add_readings(db, count.readings)
        await account_rows.put_windows(db, count.accounts.values())
        await invoices.add_readings(db, count.readings)

    def apply(self, count: Count) -> None:
        self._live.apply_count(count.readings, count.accounts)
        self.bytes_in += sum(r.amount.bytes_in for r in count.readings)
        self.bytes_out += sum(r.amount.bytes_out for r in count.readings)

    def _count(self, readings: Sequence[Reading]) -> Count:
        accounts: dict[str, Account] = {}
        for r in readings:
            account = accounts.get(r.after.account_id) or self._live.owner(r.after)
            use = Use(r.amount.total_bytes, r.amount.time_ms, r.start_ms, r.end_ms)
            accounts[account.id] = replace(account, windows=account.windows.spend(self._terms.tiers[account.tier], use))
        return Count(readings, {r.after.public_key: r.after for r in readings}, accounts)


def _dated(reading: Reading, session: Session, now: Moment) -> Reading:
    """Corrects when the last handshake was, which the kernel tells by the host's wall clock."""
    after, told_ms = reading.after, reading.after.last_handshake_at
    if told_ms is None or after.handshake_seen_ns == session.handshake_seen_ns:
        return reading
    start_ms = now.wall_ms - accounting.elapsed_ms(session, now)
    at_ms = clock_steps.handshake_at(told_ms, start_ms, now.wall_ms)
    return reading if at_ms == told_ms else replace(reading, after=replace(after, last_handshake_at=at_ms))


def _read_time(session: Session, *, upto: Moment, now: Moment) -> Reading:
    """Counts the session's time up to `upto`, without its counters; the next count starts at `now`."""
    amount = accounting.running(session, upto)
    spent = accounting.use(amount, upto)
    return Reading(amount, spent.start_ms, spent.end_ms, accounting.counted(session, amount, now), None)


def read_session(
    session: Session, sample: PeerState, baseline: Baseline | None, ifindex: int, now: Moment
) -> Reading | None:
    """Returns what `sample` adds to `session`, or None if nothing has to be written now."""
    moved = accounting.read_counters(baseline, sample.rx_bytes, sample.tx_bytes, boot_id=now.boot_id, ifindex=ifindex)
    shook = sample.last_handshake_ns not in (0, session.handshake_seen_ns)
    amount = accounting.capped(session, Amount(accounting.elapsed_ms(session, now), moved.rx_bytes, moved.tx_bytes))
    unmoved = moved.baseline == baseline or (baseline is None and not amount.bytes_in and not amount.bytes_out)
    if unmoved and not shook and amount.time_ms < TIME_WRITTEN_EVERY_MS:
        return None
    after = accounting.counted(session, amount, now)
    if shook:
        after = replace(
            after,
            last_handshake_at=sample.last_handshake_ns // 1_000_000,
            handshake_seen_ns=sample.last_handshake_ns,
            quiet_since_ms=now.boot_ms,
            quiet_boot_id=now.boot_id,
        )
    spent = accounting.use(amount, now)
    return Reading(amount, spent.start_ms, spent.end_ms, after, moved.baseline)
