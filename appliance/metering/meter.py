"""Meters sessions: dumps peers, computes what moved, commits it in one transaction."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain import accounting, clock_steps
from appliance.domain.accounting import Reading, read_time
from appliance.domain.charges import Amount
from appliance.domain.errors import StoreUnavailable
from appliance.metering.spending import Count, Spending
from appliance.network.lazy_mapping import OnDemand
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import invoices, peers
from appliance.store.queries import node as node_row

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    import aiosqlite

    from appliance.config.plans import Terms
    from appliance.domain.clock import Clock, Moment
    from appliance.domain.entities import Account, Baseline, Session
    from appliance.domain.tiers import TierLimits
    from appliance.network.wireguard.tunnel import Dump, PeerState, Tunnel
    from appliance.store.database import Store
    from appliance.store.live import LiveSessions

# Session time is derived from the clock at any moment. It is written with the bytes and with handshakes, when something
# depends on how it is divided, at the end, and this often: what is not written must not grow without bound.
SWEPT_EVERY_MS = 6 * 3_600_000
# Of one tick, of those that are due to be swept: they are written with the exit lock held.
SWEPT_AT_ONCE = 500
# Sessions of one transaction: they take 1.5 KB each meanwhile.
RESTARTED_AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class Observation:
    """Holds one dump and what it adds to the last count."""

    dump: Dump
    now: Moment
    count: Count
    total_bytes: int  # of all sessions since the process started, including this observation
    relabels: bool  # the wall clock was set: to be committed at once, as the time before keeps its label


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
        self._spending = Spending(live, terms)
        self._clock = clock
        self._last: Dump | None = None  # the last dump
        self._last_at: Moment | None = None
        # Peers that changed since they were last committed, with the last moment at which they had not.
        self._moved: dict[bytes, Moment | None] = {}
        # Whether all may have, as there were none before: their keys would take 80 bytes a session. Since one moment.
        self._all_moved = False
        self._all_since: Moment | None = None
        self._loads = 0  # `live.loads` for which the fields above hold
        self._sweep: deque[bytes] = deque()  # what is left of the last one
        self._labelled: Moment | None = None  # where the wall clock stood when all time was last labelled by it
        self.bytes_in = 0  # billed since the process started
        self.bytes_out = 0

    async def read(self) -> Dump:
        """Dumps the peers and bills what moved. Raises TunnelError or StoreUnavailable."""
        observation = await self.observe()
        await self.commit(observation)
        return observation.dump

    async def observe(self, ending: Collection[bytes] = (), *, sweep: bool = False) -> Observation:
        """Dumps the peers and compares them with the last count.

        Reads sessions whose peers changed since they were last committed, and those of the keys in `ending`, for the
        last time; with `sweep` some of those whose time is due to be written; and all of them if the wall clock was
        set. Raises TunnelError if the dump fails; StoreUnavailable if memory is not in sync with the store.
        """
        if not self._live.in_sync:
            # Use missing from memory may already be stored. The next tick reads the store first.
            raise StoreUnavailable
        dump = await self._dump(ending)
        now = self._clock.now()
        self._note_moved(dump, now)
        relabels = self._is_relabelled(now)
        if relabels:
            count = self._relabelled(dump, now)
        else:
            due = dict.fromkeys([*(self._to_sweep(now) if sweep else ()), *ending])
            moved = self._moved_in(dump)
            others = {key: None for key in due if key not in moved}
            readings = [*self._readings(others, due, dump, now), *self._readings(moved, due, dump, now)]
            count = self._spending.count(readings, lambda key: now if key in dump.peers else self._live.heartbeat)
        total = self.bytes_in + self.bytes_out + sum(r.amount.total_bytes for r in count.readings)
        return Observation(dump, now, count, total, relabels)

    async def _dump(self, ending: Collection[bytes]) -> Dump:
        """Dumps the peers; once more if one is not shown whose session ends, as it could not be read any more.

        A dump ends early if the peer under its cursor is removed: only a peer that two dumps lack is missing.
        """
        dump = await self._tunnel.dump()
        return dump if all(key in dump.peers for key in ending) else await self._tunnel.dump()

    def _note_moved(self, dump: Dump, now: Moment) -> None:
        if self._loads != self._live.loads:
            # Memory was reloaded from the store: which changes it has counted is unknown.
            self._last, self._last_at, self._moved, self._loads = None, None, {}, self._live.loads
            self._all_moved = False
        last = self._last
        if not self._moved and (last is None or not last.peers or last.ifindex != dump.ifindex):
            self._all_moved, self._all_since = True, self._last_at
        if not self._all_moved:
            for key in dump.changed_since(last):
                self._moved.setdefault(key, self._last_at)
        self._last, self._last_at = dump, now

    def _moved_in(self, dump: Dump) -> Mapping[bytes, Moment | None]:
        """Returns the peers of the dump that changed since they were last committed, as `_moved` does."""
        return OnDemand(dump.peers, lambda _: self._all_since) if self._all_moved else self._moved

    def _to_sweep(self, now: Moment) -> list[bytes]:
        """Returns some of the sessions whose time is due to be written, in the order of their rows.

        Neighbours share pages of the file, so that these are written once.
        """
        due_ms = now.boot_ms - SWEPT_EVERY_MS
        if not self._sweep:
            due = self._live.last_counted_by(due_ms)
            self._sweep = deque(sorted(due, key=lambda key: self._live[key].address_offset))
        taken = [self._sweep.popleft() for _ in range(min(len(self._sweep), SWEPT_AT_ONCE))]
        sessions = ((key, self._live.get(key)) for key in taken)
        return [key for key, s in sessions if s is not None and s.counted_until_ms <= due_ms]

    def _is_relabelled(self, now: Moment) -> bool:
        """Tells whether the wall clock was set since all time was last labelled, in one step or several small ones."""
        labelled = self._labelled or self._live.heartbeat
        return any(accounting.is_relabelled(before, now) for before in (self._live.heartbeat, labelled))

    def _relabelled(self, dump: Dump, now: Moment) -> Count:
        """Counts all sessions: time up to the last heartbeat as it was labelled then, and the rest as it is now."""
        before = self._live.heartbeat
        ordered = sorted(self._live, key=lambda s: s.counted_until_ms)
        until = self._spending.spend([read_time(s, before) for s in ordered if accounting.elapsed_ms(s, before)])
        # If the clock was set back, windows that opened since then open now.
        owners = (until.accounts.get(account.id, account) for account in self._live.owners())
        ahead = [a for a in owners if (a.windows.time.opened_at or 0) > now.wall_ms]
        begun = {a.id: self._spending.opened(a, now.wall_ms) for a in ahead}
        moved = self._moved_in(dump)
        every = {s.public_key: moved.get(s.public_key) for s in ordered}
        readings = list(self._readings(every, every, dump, now, until.sessions))
        since = self._spending.spend(readings, {**until.accounts, **begun})
        return Count([*until.readings, *readings], {**until.sessions, **since.sessions}, since.accounts)

    def _readings(
        self,
        unmoved_until: Mapping[bytes, Moment | None],
        due: Mapping[bytes, object],
        dump: Dump,
        now: Moment,
        before: Mapping[bytes, Session] | None = None,
    ) -> Iterator[Reading]:
        """Yields what the dump adds to these sessions; of those that are `due`, the time in any case.

        `before`: those of which other readings come first, as they are with these counted.
        """
        live, before = self._live, before or {}
        for key, quiet in unmoved_until.items():
            session, sample = before.get(key) or live.get(key), dump.peers.get(key)
            if session is None:
                continue
            if sample is None:
                # A missing peer cannot be used: see `restart`.
                if key in due and accounting.elapsed_ms(session, live.heartbeat):
                    yield read_time(session, live.heartbeat)
                continue
            # Each heartbeat is committed with all that had moved by then.
            reading = read_session(session, sample, live.baseline(key), dump.ifindex, now, quiet or live.heartbeat)
            if reading is not None:
                yield _dated(reading, session, now)
            elif key in due and accounting.elapsed_ms(session, now):
                yield read_time(session, now)

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
        if self._labelled is None or observation.relabels or self._labelled.boot_id != observation.now.boot_id:
            self._labelled = observation.now
        self.apply(observation.count)
        self._moved.clear()
        self._all_moved = False

    async def catch_up(self) -> None:
        """Counts each session's time after a reboot, up to the last heartbeat before it. Raises StoreUnavailable."""
        now = self._clock.now()
        before = [s for s in self._live if s.counted_boot_id != now.boot_id]
        await self._count_time_until(self._live.heartbeat, before, now)

    async def settle(self, tiers: Mapping[str, TierLimits] | None) -> bool:
        """Counts time up to the last heartbeat where these tiers have other windows of session time; None: everywhere.

        Until now that time was the old window's. Returns whether anything was counted. Raises StoreUnavailable.
        """
        if tiers is None:
            return await self._settle(lambda _: True)
        return await self._settle(lambda a: tiers[a.tier].seconds_window != self._terms.tiers[a.tier].seconds_window)

    async def settle_moved(self, accounts: Iterable[Account]) -> bool:
        """Does the same for accounts that are about to have another tier, as they are given here."""
        tier_of, tiers = {account.id: account.tier for account in accounts}, self._terms.tiers
        return await self._settle(
            lambda a: tiers[tier_of.get(a.id, a.tier)].seconds_window != tiers[a.tier].seconds_window
        )

    async def _settle(self, changes: Callable[[Account], bool]) -> bool:
        before = self._live.heartbeat
        changing = [account for account in self._live.owners() if changes(account)]
        sessions = [s for a in changing for s in self._live.of_account(a.id) if accounting.elapsed_ms(s, before)]
        await self._count_time_until(before, sessions, before)
        return bool(sessions)

    async def restart(self, public_keys: AbstractSet[bytes], seen_until: Moment) -> None:
        """Prepares sessions for re-adding their peers: counters start at zero, idleness counts from now.

        A missing peer cannot be used: time counts up to `seen_until`, the last heartbeat before it was found missing.
        All may be missing: they are counted account by account, some at once, so that memory does not hold all twice.
        Raises StoreUnavailable.
        """
        now = self._clock.now()
        for keys in self._live.by_account(public_keys, RESTARTED_AT_ONCE):
            sessions = [replace(self._live[key], quiet_since_ms=now.boot_ms, quiet_boot_id=now.boot_id) for key in keys]
            await self._count_time_until(seen_until, sessions, now, forget=sessions)

    async def _count_time_until(
        self, until: Moment, sessions: Sequence[Session], now: Moment, forget: Sequence[Session] = ()
    ) -> None:
        if not sessions:
            return
        count = self._spending.count([read_time(s, until, now) for s in sessions], lambda _: until)
        async with self._live.committing(self._store) as db:
            await self.write(db, count)
            await peers.forget_baselines(db, [s.address_offset for s in forget])
        self.apply(count)
        self._live.drop_baselines([s.public_key for s in forget])

    def count_time(self, sessions: Iterable[Session]) -> Count:
        """Counts the time of these sessions up to now, for the caller that ends them."""
        now, heartbeat = self._clock.now(), self._live.heartbeat
        readings = accounting.uncounted(sessions, heartbeat, now)
        if accounting.is_relabelled(heartbeat, now):
            return self._spending.spend(readings)
        return self._spending.count(readings, lambda _: heartbeat)

    async def write(self, db: aiosqlite.Connection, count: Count) -> None:
        """Writes `count` in the caller's transaction; the caller must call `apply` once it is committed."""
        await peers.add_readings(db, count.readings)
        await account_rows.put_windows(db, count.accounts.values())
        await invoices.add_readings(db, count.readings)

    def apply(self, count: Count) -> None:
        self._live.apply_count(count.readings, count.accounts)
        self.bytes_in += sum(r.amount.bytes_in for r in count.readings)
        self.bytes_out += sum(r.amount.bytes_out for r in count.readings)


def _dated(reading: Reading, session: Session, now: Moment) -> Reading:
    """Corrects when the last handshake was, which the kernel tells by the host's wall clock."""
    after, told_ms = reading.after, reading.after.last_handshake_at
    if told_ms is None or after.handshake_seen_ns == session.handshake_seen_ns:
        return reading
    start_ms = reading.start_ms if reading.moved_ms is None else reading.moved_ms
    at_ms = clock_steps.handshake_at(told_ms, start_ms, now.wall_ms)
    return reading if at_ms == told_ms else replace(reading, after=replace(after, last_handshake_at=at_ms))


def read_session(
    session: Session,
    sample: PeerState,
    baseline: Baseline | None,
    ifindex: int,
    now: Moment,
    unmoved_until: Moment | None = None,
) -> Reading | None:
    """Returns what `sample` adds to `session`, or None if nothing has moved and there was no handshake.

    `unmoved_until`: the last moment at which its peer is known to have been as it was last counted.
    """
    moved = accounting.read_counters(baseline, sample.rx_bytes, sample.tx_bytes, boot_id=now.boot_id, ifindex=ifindex)
    shook = sample.last_handshake_ns not in (0, session.handshake_seen_ns)
    elapsed_ms = accounting.elapsed_ms(session, now)
    amount = accounting.capped(session, Amount(elapsed_ms, moved.rx_bytes, moved.tx_bytes))
    unmoved = moved.baseline == baseline or (baseline is None and not amount.bytes_in and not amount.bytes_out)
    if unmoved and not shook:
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
    if unmoved_until is not None and unmoved_until.boot_id == now.boot_id:
        elapsed_ms = min(elapsed_ms, max(0, now.boot_ms - unmoved_until.boot_ms))
    spent = accounting.use(amount, now)
    return Reading(amount, spent.start_ms, spent.end_ms, after, moved.baseline, now.wall_ms - elapsed_ms)
