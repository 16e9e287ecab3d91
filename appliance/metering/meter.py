"""Meters sessions: dumps peers, computes what moved, commits it in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain import accounting, carrying
from appliance.domain.accounting import read_time
from appliance.domain.errors import StoreUnavailable
from appliance.metering.device_handshakes import DeviceHandshakes, first_reading
from appliance.metering.handshakes import Handshakes
from appliance.metering.readings import read_session
from appliance.metering.spending import Count, Spending
from appliance.network.lazy_mapping import OnDemand
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import devices as device_rows
from appliance.store.queries import fleet_lives, invoices, peers
from appliance.store.queries import node as node_row

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    import aiosqlite

    from appliance.config.plans import Terms
    from appliance.domain.accounting import Reading
    from appliance.domain.believed_clock import BelievedClock
    from appliance.domain.clock import Moment
    from appliance.domain.device import Device
    from appliance.domain.entities import Account, Session
    from appliance.domain.tiers import TierLimits
    from appliance.network.wireguard.tunnel import Dump, Tunnel
    from appliance.store.database import Store
    from appliance.store.live import LiveSessions
    from appliance.store.live_devices import LiveDevices

# Session time is derived from the clock at any moment. It is written with the bytes and with handshakes, when something
# depends on how it is divided, at the end, and when the tunnel can no longer carry: so many sessions of one tick at
# most, as they are written with the exit lock held.
STOPPED_AT_ONCE = 500
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
    resumed: AbstractSet[str] = frozenset()  # accounts with sessions that carry now, and cannot by what is committed
    connected: bool = False  # a session had its first handshake: to be committed at once, as its client asks for it
    unfinished: Sequence[Device] = ()  # with what handshakes have moved that came to nothing


class Meter:
    """Reads all counters, and commits what changed.

    Its methods must be called with the exit lock held (`sessions.peer_access`): readings must be committed in the order
    in which they were taken, or an older one would look like a counter that restarted.
    """

    def __init__(
        self,
        store: Store,
        tunnel: Tunnel,
        live: LiveSessions,
        devices: LiveDevices,
        terms: Terms,
        clock: BelievedClock,
        reject_after_ms: int = carrying.REJECT_AFTER_MS,
    ) -> None:
        self._store = store
        self._tunnel = tunnel
        self._live = live
        self._devices = devices
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
        self.reject_after_ms = reject_after_ms
        self._handshakes = Handshakes(reject_after_ms)
        self.device_handshakes = DeviceHandshakes(devices, clock, reject_after_ms)
        self._labelled: Moment | None = None  # where the wall clock stood when all time was last labelled by it
        self.bytes_in = 0  # billed since the process started
        self.bytes_out = 0

    async def read(self) -> Dump:
        """Dumps the peers and bills what moved. Raises TunnelError or StoreUnavailable."""
        observation = await self.observe()
        await self.commit(observation)
        return observation.dump

    async def observe(self, ending: Collection[bytes] = (), *, whole: bool = False) -> Observation:
        """Dumps the peers and compares them with the last count.

        Reads sessions whose peers changed since they were last committed, and those of the keys in `ending`, for the
        last time; if it is of a whole tick, those that carry no longer; and all of them if the wall clock was set.
        Raises TunnelError if the dump fails; StoreUnavailable if memory is not in sync with the store.
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
            due = dict.fromkeys([*(self._live.stopped(now, STOPPED_AT_ONCE) if whole else ()), *ending])
            moved = self.moved_in(dump)
            others = {key: None for key in due if key not in moved}
            readings = [*self._readings(others, due, dump, now), *self._readings(moved, due, dump, now)]
            count = self._spending.count(readings, lambda key: now if key in dump.peers else self._live.heartbeat)
        first = self._handshakes.looked()
        unfinished = self.device_handshakes.read(
            self._live.public_keys(), self.moved_in(dump), dump, now, self._live.heartbeat, first=first
        )
        total = self.bytes_in + self.bytes_out + sum(r.amount.total_bytes for r in count.readings)
        return Observation(dump, now, count, total, relabels, *self._begun(count, now), unfinished)

    def _begun(self, count: Count, now: Moment) -> tuple[set[str], bool]:
        """Returns the accounts with sessions that carry again, and whether a session had its first handshake."""
        resumed, connected = set(), False
        for key in self._handshakes.public_keys() & count.sessions.keys():
            before, after = self._live[key], count.sessions[key]
            if before.carries_until_ms <= now.boot_ms < after.carries_until_ms:
                resumed.add(after.account_id)
                connected = connected or before.last_handshake_at is None
        return resumed, connected

    async def _dump(self, ending: Collection[bytes]) -> Dump:
        """Dumps the peers; once more if one is not shown whose session ends, as it could not be read any more.

        A dump ends early if the peer under its cursor is removed: only a peer that two dumps lack is missing.
        """
        dump = await self._tunnel.dump()
        return dump if all(key in dump.peers for key in ending) else await self._tunnel.dump()

    def note_moved(self, public_key: bytes, unmoved_until: Moment) -> None:
        """Notes that a peer has moved since then, which was not of a session."""
        self._moved.setdefault(public_key, unmoved_until)

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

    def moved_in(self, dump: Dump) -> Mapping[bytes, Moment | None]:
        """Returns the peers that changed since they were last committed, each with the last moment at which it had not;
        None: that was the last heartbeat."""
        return OnDemand(dump.peers, lambda _: self._all_since) if self._all_moved else self._moved

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
        moved = self.moved_in(dump)
        every = {s.public_key: moved.get(s.public_key) for s in ordered}
        readings = sorted(self._readings(every, every, dump, now, until.sessions), key=lambda r: r.start_ms)
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
            quiet = quiet or live.heartbeat
            shaken = self._handshakes.found(session, sample, quiet, now, self._clock.ahead_ms)
            readings = read_session(session, sample, live.baseline(key), dump.ifindex, now, quiet, shaken)
            yield from readings
            if not readings and key in due and accounting.elapsed_ms(session, now):
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
        await device_rows.put_unfinished(db, observation.unfinished)
        await node_row.write_heartbeat(db, observation.now)

    def committed(self, observation: Observation) -> None:
        """Takes into memory what was written."""
        self._live.note_heartbeat(observation.now)
        if self._labelled is None or observation.relabels or self._labelled.boot_id != observation.now.boot_id:
            self._labelled = observation.now
        self.apply(observation.count)
        for device in observation.unfinished:
            self._devices.put(device)
        self._handshakes.forget(observation.count.sessions, self._live.public_keys())
        self._moved.clear()
        self._all_moved = False

    async def catch_up(self) -> None:
        """Counts each session's time after a reboot, up to the last heartbeat before it. Raises StoreUnavailable."""
        now = self._clock.now()
        before = [s for s in self._live if s.counted_boot_id != now.boot_id]
        await self._count_time_until(self._live.heartbeat, before, resume=now)

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
        await self._count_time_until(before, sessions)
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
            await self._count_time_until(seen_until, sessions, resume=now, forget=sessions)
        self._handshakes.forget(public_keys, self._live.public_keys())

    async def _count_time_until(
        self,
        until: Moment,
        sessions: Sequence[Session],
        *,
        resume: Moment | None = None,
        forget: Sequence[Session] = (),
    ) -> None:
        if not sessions:
            return
        count = self._spending.count([read_time(s, until, resume) for s in sessions], lambda _: until)
        async with self._live.committing(self._store) as db:
            await self.write(db, count)
            if forget:
                await peers.forget_baselines(db, [s.address_offset for s in forget])
                await fleet_lives.begin(db, [s.id for s in forget])
        self.apply(count)
        self._live.drop_baselines([s.public_key for s in forget])

    def count_time(self, sessions: Iterable[Session]) -> Count:
        """Counts the time of these sessions up to now, for the caller that ends them."""
        now, heartbeat = self._clock.now(), self._live.heartbeat
        readings = accounting.uncounted(sessions, heartbeat, now)
        if accounting.is_relabelled(heartbeat, now):
            return self._spending.spend(readings)
        return self._spending.count(readings, lambda _: heartbeat)

    def count_unfinished(self, begun: Iterable[tuple[Session, Device]], before: Mapping[str, Account]) -> Count:
        """Counts, for new sessions of devices, what handshakes have moved that came to nothing.

        `before`: the accounts as the caller's transaction has written them already.
        """
        now = self._clock.now()
        readings = [first_reading(s, d, now) for s, d in begun if d.unfinished_rx or d.unfinished_tx]
        return self._spending.spend(readings, before) if readings else Count([], {}, {})

    async def write(self, db: aiosqlite.Connection, count: Count) -> None:
        """Writes `count` in the caller's transaction; the caller must call `apply` once it is committed."""
        await peers.add_readings(db, count.readings)
        await account_rows.put_windows(db, count.accounts.values())
        await invoices.add_readings(db, count.readings)

    def apply(self, count: Count) -> None:
        self._live.apply_count(count.readings, count.accounts)
        self.bytes_in += sum(r.amount.bytes_in for r in count.readings)
        self.bytes_out += sum(r.amount.bytes_out for r in count.readings)
