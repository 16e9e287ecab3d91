"""What has to hold after every step, whatever happened in it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import structs

from appliance.domain import accounting, charges, invoice, quota
from appliance.domain.believed_clock import BelievedClock
from appliance.domain.charges import Amount
from appliance.domain.entities import Reason, Session, State
from appliance.domain.tiers import Tier
from appliance.metering import invoices as running_invoices
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import invoices
from appliance.store.queries import node as node_row
from appliance.store.queries import peers as peer_rows
from appliance.store.queries import sessions as rows
from tests.support.faults.device_invariants import DeviceInvariants
from tests.support.faults.kernel import where
from tests.support.faults.ledger import Pair
from tests.support.faults.violations import require
from tests.support.faults.world import IDLE_MS, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.domain.clock import Moment
    from appliance.domain.entities import Account
    from tests.support.faults.world import World

SHORTEST_WINDOW_MS = 1000 * min(
    length for v in VARIANTS for t in v.tiers.values() for length in (t.bytes_window, t.seconds_window)
)


@dataclass
class Past:
    """What is known of a session from the steps before. `..._before`: as it was when the step began in which it
    was first seen; `..._after`: when that step had ended. `ended_at` None while it is not terminated."""

    session: Session
    ran_before: int
    ran_after: int
    true_before: Pair
    refused: bool  # of a device that may not connect: it ends at once
    ended_at: int | None = None
    ended_not_before: int = 0
    ended_away: bool = False  # its peer was away when the step began
    true_at_end: Pair = Pair()  # noqa: RUF009 (immutable)


def _billed(sessions: Iterable[Session]) -> Pair:
    total = Pair()
    for s in sessions:
        total = total.plus(Pair(s.bytes_in, s.bytes_out))
    return total


def _end(s: Session) -> tuple[object, ...]:
    return (s.state, s.reason, s.terminated_at, s.counted_ms, s.bytes_in, s.bytes_out)


class Invariants:
    def __init__(self, world: World) -> None:
        self._world = world
        self._devices = DeviceInvariants(world)
        self._past: dict[str, Past] = {}
        self._ran_before = 0
        self._ids_before: set[str] = set()
        self._true_before: dict[bytes, Pair] = {}
        self._peers_before: set[bytes] = set()
        self._to_undo: set[str] = set()  # sessions that nobody was told of, which the store may have all the same
        self._may_return: set[str] = set()  # those that they replace, which the store then has as ended
        self._wall_at_start = world.host.wall_ms

    async def check(self, *, ticked: bool, whole: bool) -> None:
        """`ticked`: the step was one tick without a fault, in which no time passed."""
        world = self._world
        db: Any = world.admin_connection
        found = await rows.unfinished(db)
        found += await rows._fetch(db, "WHERE s.state = 'terminated'")
        self._remember(found)
        self._bytes()
        self._time((await node_row.read(db)).heartbeat)
        await self._invoices(db)
        peers = {row[0] for row in db._inner.execute("SELECT address_offset FROM peers").fetchall()}
        held = {s.address_offset for s in found if s.state in (State.LIVE, State.CLOSING)}
        require(peers == held, "each live session has a peer's row, and no other", peers, held)
        accounts = [account_rows.from_row(row) for row in db._inner.execute(account_rows._ALL).fetchall()]
        await self._devices.check(db, found, self._keys_to_undo())
        await self._shown(db, accounts)
        self._windows(accounts)
        unfinished = [s for s in found if s.state is not State.TERMINATED]
        self._memory(unfinished, dict([pair async for pair in peer_rows.baselines(db)]), {a.id: a for a in accounts})
        if ticked:
            self._after_a_tick(unfinished, {a.id: a for a in accounts}, whole=whole)
        elsewhere = [p for key, p in world.kernel.peers.items() if p.endpoint not in (None, where(key))]
        require(not elsewhere, "peers are where their clients were seen", elsewhere)
        self._ids_before = self._past.keys() | ()
        self._ran_before = world.host.ran_ms
        self._true_before = dict(world.ledger.true)
        self._peers_before = set(world.kernel.interface.peers)

    async def settled(self) -> None:
        """After whole ticks without a fault: the store, the tunnel and the memory are equal."""
        world = self._world
        assert world.parts is not None
        require(world.parts.node.health.fault is None, "ready at the end", world.parts.node.health.fault)
        db: Any = world.admin_connection
        found = await rows.unfinished(db)
        require(all(s.state is State.LIVE for s in found), "only live rows at the end", [s.state for s in found])
        kept = [p for p in world.kernel.peers.values() if p.keepalive_s and p.last_handshake_ns]
        require(not kept, "no keepalive stays after a handshake", kept)
        accounts = [account_rows.from_row(row) for row in db._inner.execute(account_rows._ALL).fetchall()]
        await self._devices.settled(db, found, {account.id: account for account in accounts})

    def _keys_to_undo(self) -> set[bytes]:
        parts = self._world.parts
        return set() if parts is None else set(parts.ticker._turnover._ending._undo._failed)

    # One by one --------------------------------------------------------------------------------------

    def _remember(self, found: list[Session]) -> None:
        world = self._world
        host, true = world.host, world.ledger.true
        present = set()
        for s in found:
            present.add(s.id)
            past = self._past.get(s.id)
            if past is None:
                before = self._true_before.get(s.public_key, Pair())
                refused = bool(s.device_id) and s.state is not State.LIVE  # or it has ended in its first step
                if s.device_id:  # what its peer moved since its last session is this one's
                    earlier = [self._past[id_].session for id_ in self._ids_before & self._past.keys()]
                    before = _billed(x for x in earlier if x.public_key == s.public_key)
                past = self._past[s.id] = Past(s, self._ran_before, host.ran_ms, before, refused)
            if past.session.state is State.PENDING:
                past.ran_after = host.ran_ms
            was = past.session
            require(
                s.counted_ms >= was.counted_ms and s.bytes_in >= was.bytes_in and s.bytes_out >= was.bytes_out,
                "totals never go down",
                was,
                s,
            )
            # What returned may have ended once more in the same step.
            if was.state is State.TERMINATED and _end(s) != _end(was):
                require(s.id in self._may_return, "the ended stay ended", s)
                past.ended_at, past.ended_away, past.true_at_end = None, False, Pair()
            past.session = s
            if s.state is State.TERMINATED and past.ended_at is None:
                past.ended_at, past.ended_not_before = host.ran_ms, self._ran_before
                past.ended_away = s.public_key not in self._peers_before
                past.true_at_end = true[s.public_key]
                self._ended_rightly(s)
        for session_id in self._past.keys() - present:
            was = self._past[session_id].session
            if was.state is State.PENDING or session_id in self._to_undo:
                del self._past[session_id]
            else:
                require(was.state is State.TERMINATED, "only the terminated vanish", was)
        failed = [] if world.parts is None else world.parts.ticker._turnover._ending._undo._failed.values()
        self._to_undo = {f.session.id for f in failed}
        self._may_return = {f.replaced.id for f in failed if f.replaced is not None}

    def _ended_rightly(self, s: Session) -> None:
        ledger = self._world.ledger
        if s.reason is Reason.IDLE:
            quiet = ledger.longest_quiet(s.public_key, self._ran_before)
            require(quiet > IDLE_MS, "nobody is idle before their time", quiet, s)
            until = ledger.carried.known_until(s.public_key, s.handshake_seen_ns) if s.device_id else None
            still = until is not None and until > self._world.host.ran_ms
            require(not still, "no device is idle while its tunnel can carry", until, s)
        if s.reason is Reason.EXPIRED:
            require(self._world.now().wall_ms >= s.expires_at, "nobody expires before their time", s)

    def _bytes(self) -> None:
        ledger = self._world.ledger
        billed: defaultdict[bytes, Pair] = defaultdict(Pair)
        for past in self._past.values():
            s = past.session
            own = Pair(s.bytes_in, s.bytes_out)
            billed[s.public_key] = billed[s.public_key].plus(own)
            end = ledger.true[s.public_key] if past.ended_at is None else past.true_at_end
            require(own.fits(end.minus(past.true_before)), "a session's bytes moved while it was live", s, end, past)
        for key in billed.keys() | ledger.unfinished.keys():
            sum_ = billed[key].plus(ledger.unfinished[key])
            require(sum_.fits(ledger.true[key]), "billed <= true", sum_, ledger.true[key])
            lack = ledger.committed[key].minus(sum_)
            lost = ledger.lost[key]
            require(lack.fits(lost), "lost <= moved since the last committed reading", lack, lost, sum_, key[:1])

    def _time(self, heartbeat: Moment) -> None:
        now, ledger, ran = self._world.host.now(), self._world.ledger, self._world.host.ran_ms
        carried, beat_at, of_keys = ledger.carried, ledger.beat_at, defaultdict[bytes, int](int)
        for past in self._past.values():
            s = past.session
            if s.state is State.PENDING:
                continue
            total = s.counted_ms + accounting.elapsed_ms(s, now if s.counted_boot_id == now.boot_id else heartbeat)
            ended = ran if past.ended_at is None else past.ended_at
            # A device's handshake may have been before the process that has found it.
            most = carried.most(s.public_key, 0 if s.device_id else past.ran_before, ended)
            of_keys[s.public_key] += total
            require(total <= most, "seconds <= those in which the tunnel could carry", total, most, past)
            if past.ended_away or past.refused:
                continue  # how long a peer was away nobody knows
            until = ran if past.ended_at is None else past.ended_not_before
            least = carried.least(s.public_key, past.ran_after, until, beat_at)
            require(total >= least, "time that is known counts", total, least, past)
        for key, total in of_keys.items():
            most = carried.most(key, 0, ran)
            require(total <= most, "seconds of all sessions <= those in which the tunnel could carry", total, most, key)

    async def _invoices(self, db: Any) -> None:
        months = set()
        for past in self._past.values():
            s = past.session
            days = await invoices.days(db, s.id)
            found = db._inner.execute("SELECT * FROM invoice_lines WHERE session_id = ?", (s.id,)).fetchall()
            lines = [invoices._line(row) for row in found]
            if s.tier is not Tier.PAID or s.state is State.PENDING:
                require(not days and not lines, "only the paid stand on invoices", s, days, lines)
                continue
            total = accounting.total(s)
            require(sum((part for _, part in days), Amount()) == total, "days add up to the session", days, total)
            whole = charges.charge(s.rates, Amount(), total)
            parts = [line.charge for line in lines]
            added = tuple(
                sum(getattr(p, leg) or 0 for p in parts)
                for leg in ("seconds", "bytes_in", "bytes_out", "time_millicents", "bytes_millicents")
            )
            wanted = (
                *(whole.seconds, whole.bytes_in, whole.bytes_out),
                *(whole.time_millicents or 0, whole.bytes_millicents or 0),
            )
            require(added == wanted, "lines add up to the session's charge", added, wanted, days, parts)
            open_lines = [line for line in lines if line.ended_at is None]
            require(bool(open_lines) == (past.ended_at is None), "a line is open while the session runs", s, lines)
            months |= {(s.account_id, line.month) for line in lines}
        for account_id, month in months:
            lines = await invoices.lines(db, account_id, month)
            moved = await invoices.sessions_of_month(db, account_id, month)
            days_of = {session_id: await invoices.days(db, session_id) for session_id in moved}
            rates = await invoices.rates(db, days_of)
            wrong = invoice.differences(month, lines, days_of, rates)
            require(not wrong, "the invoice can be recalculated", wrong, days_of)

    async def _shown(self, db: Any, accounts: list[Account]) -> None:
        """Another process shows invoices up to now, which agree with the days, whatever has been counted."""
        row = await node_row.read(db)
        clock = BelievedClock(self._world.host, row.known(self._world.host.now()))
        now = clock.now()
        live = {past.session.id: past.session for past in self._past.values()}
        for account in accounts:
            found = await running_invoices.read(db, account, charges.month_of(charges.day_of(now.wall_ms)), clock)
            for session_id, bill in found.running.items():
                s = live[session_id]
                since = accounting.uncounted([s], row.heartbeat, now)
                total = sum((reading.amount for reading in since), accounting.total(s))
                require(sum((part for _, part in bill.days), Amount()) == total, "shown days add up", s, bill, total)
                shown = sum((x.charge for x in bill.lines.values()), charges.charge(s.rates, total, total))
                require(shown == charges.charge(s.rates, Amount(), total), "shown lines add up", s, bill, total)
                own = {session_id: list(bill.days)}
                for month, line in bill.lines.items():
                    wrong = invoice.differences(month, [line], own, {session_id: s.rates})
                    require(not wrong, "what is shown can be recalculated", wrong, bill)

    def _windows(self, accounts: list[Account]) -> None:
        billed: defaultdict[str, int] = defaultdict(int)
        counted: defaultdict[str, int] = defaultdict(int)
        for past in self._past.values():
            billed[past.session.account_id] += past.session.bytes_in + past.session.bytes_out
            counted[past.session.account_id] += past.session.counted_ms
        host = self._world.host
        none_ended = not host.stepped and host.wall_ms - self._wall_at_start < SHORTEST_WINDOW_MS
        for a in accounts:
            used = (a.windows.traffic.used, a.windows.time.used)
            moved, undone = (billed[a.id], counted[a.id]), self._moved_undone(a.id)
            fits = used[0] <= moved[0] + undone and used[1] <= moved[1]
            require(fits, "windows hold what moved", a.name, used, moved, undone)
            all_held = moved[0] <= used[0] and used[1] == moved[1]
            require(not none_ended or all_held, "the first windows hold all that moved", a.name, used, moved)

    def _moved_undone(self, account_id: str) -> int:
        """Returns the bytes of sessions that were undone: they are billed to nobody, and stay in the windows."""
        ledger, billed = self._world.ledger, defaultdict[bytes, int](int)
        for past in self._past.values():
            billed[past.session.public_key] += past.session.bytes_in + past.session.bytes_out
        return sum(sum(ledger.true[key]) - billed[key] for key in ledger.undone[account_id])

    def _memory(self, unfinished: list[Session], baselines: Any, accounts: dict[str, Account]) -> None:
        parts = self._world.parts
        if parts is None or not parts.live.in_sync:
            return
        # The store is told of some ends a little later.
        ends = parts.records.ended.copy()
        live = {s.public_key: s for s in unfinished if s.state is not State.PENDING and s.id not in ends}
        ended = {s.public_key for s in ends.values()}
        require(live.keys() == parts.live.public_keys(), "memory holds the live sessions", live.keys())
        for key, s in live.items():
            # What an admin writes is taken over by the next tick.
            admins = {name: getattr(s, name) for name in ("state", "reason", "note", "told", "account_tier")}
            known = structs.replace(parts.live[key], **admins)
            require(known == s, "memory is the store's", known, s)
            windows = parts.live.owner(s).windows
            require(windows == accounts[s.account_id].windows, "windows in memory are the store's", windows)
        kept = {key: baselines.get(key) for key in live}
        known = {key: parts.live.baseline(key) for key in live}
        require(kept == known, "baselines in memory are the store's", kept, known)
        require(not baselines.keys() - live.keys() - ended, "no baseline without a session", baselines)

    def _after_a_tick(self, unfinished: list[Session], accounts: dict[str, Account], *, whole: bool) -> None:
        world = self._world
        now, tiers = world.now(), world.settings.tiers
        stood = [s for s in unfinished if s.state is not State.PENDING]
        keys = {s.public_key for s in stood}
        require(keys <= world.kernel.peers.keys(), "every live session has its peer", stood)
        if not world.kernel.was_cut_short:
            others = world.kernel.peers.keys() - keys
            require(others <= self._devices.keys, "peers are the live sessions' and devices'", others, stood)
        # What a device's session begins with may be too much. Who may not connect ends with the next tick.
        begun = {s.account_id for s in stood if s.device_id and s.id not in self._ids_before}
        for s in stood:
            if self._past[s.id].refused or s.account_id in begun:
                continue
            account = accounts[s.account_id]
            own = [x for x in stood if x.account_id == s.account_id]
            uses = accounting.unspent(own, world.parts.live.heartbeat, now) if world.parts else []
            measured = quota.measure(account, tiers[account.tier], uses, now.wall_ms)
            require(not measured.exceeded, "nobody is live past a limit", s, measured)
            require(now.wall_ms < s.expires_at, "nobody is live past their end", s)
            require(not whole or s.state is State.LIVE, "who has to end has ended", s)
