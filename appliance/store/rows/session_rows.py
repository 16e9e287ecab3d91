"""Keeps sessions with their accounts and baselines as rows: found by key, id and account, and ordered by when they fall
due."""

from __future__ import annotations

from errno import ENOENT
from heapq import nsmallest
from typing import TYPE_CHECKING

from appliance.domain import ids
from appliance.domain.entities import State
from appliance.store.rows import session_row as layout
from appliance.store.rows.owner import TIERS
from appliance.store.rows.owners import Owners
from appliance.store.rows.row_heap import RowHeap
from appliance.store.rows.row_index import RowIndex
from appliance.store.rows.session_row import FIGURES, FIGURES_AT, OWNER, ROW_SIZE, PackedSessions
from appliance.store.rows.window_mark import WindowMark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from appliance.domain.entities import Account, Baseline, Session
    from appliance.domain.tiers import Tier
    from appliance.store.rows.owner import Owner

DRIFT_MS = 1000  # what the wall clock and CLOCK_BOOTTIME may move against each other before a sum is made anew


class SessionRows:
    """Holds sessions by row. No two have the same public key, and no two the same id.

    They are ordered by when they expire (wall clock), by until when their tunnels can carry and by since when they are
    quiet. The last two are CLOCK_BOOTTIME of the boot that the session names; the last is by the account's tier.
    The sums of accounts are of those in the second order, of which time passes; `stopped` are those that have left it
    and were not counted since.
    """

    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        self._packed = PackedSessions()
        memory = self._packed.memory
        self.owners = Owners(memory, accounts)
        self._by_key = RowIndex(memory, layout.KEY_AT, layout.KEY_SIZE)
        self._by_id = RowIndex(memory, layout.ID_AT, layout.ID_SIZE)
        self.expiries = RowHeap(memory, layout.EXPIRES_AT, layout.EXPIRY_PLACE_AT)
        self._carrying = RowHeap(memory, layout.CARRIES_UNTIL_AT, layout.CARRYING_PLACE_AT)
        self._stopped: dict[int, set[int]] = {}  # by the owner's number
        self._by_tier = [RowHeap(memory, layout.QUIET_SINCE_AT, layout.QUIET_PLACE_AT) for _ in TIERS]
        self.quiet_since = dict(zip(TIERS, self._by_tier, strict=True))
        self.closing: set[int] = set()
        self._counted_in: dict[int, int] = {}  # how many sessions were last counted in which boot

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def nbytes(self) -> int:
        """Returns the bytes that rows, indices and orders take, without accounts and what sessions share."""
        orders = (self.expiries, self._carrying, *self.quiet_since.values())
        indices = self._by_key.nbytes + self._by_id.nbytes
        return self._packed.memory.nbytes + indices + sum(order.nbytes for order in orders)

    @property
    def values_in_common(self) -> int:
        """Returns how many different values the rows name by numbers."""
        return len(self._packed.boots) + len(self._packed.traits())

    # Questions ----------------------------------------------------------------------------------------

    def all(self) -> Iterator[int]:
        """Yields all rows, in the order in which they lie in memory, but for those that are dropped meanwhile."""
        return (row for row in self._packed.memory.taken() if row in self.expiries)

    def find(self, public_key: bytes) -> int:
        """Returns the row of the session with this key; a negative number if there is none."""
        return self._by_key.find(public_key)

    def find_id(self, session_id: str) -> int:
        """Returns the row of the session with this id; a negative number if there is none."""
        row = self._by_id.find(ids.as_bytes(session_id, ids.SESSION_PREFIX)[0])
        return row if row < 0 or self._packed.has_id(row, session_id) else -ENOENT

    def find_of_device(self, device_id: str) -> int | None:
        """Returns the row of the session of a device; None: it has none."""
        return self._packed.of_device(device_id)

    def session(self, row: int) -> Session:
        """Returns the session in this row."""
        return self._packed.unpack(row, self.owners.by_number)

    def key(self, row: int) -> bytes:
        """Returns the public key of the session in this row."""
        return self._packed.key(row)

    def owner(self, row: int) -> Owner:
        """Returns the account of the session in this row."""
        number: int = OWNER.unpack_from(self._packed.memory.buffer, row * ROW_SIZE + FIGURES_AT)[0]
        return self.owners.by_number[number]

    def baseline(self, row: int) -> Baseline | None:
        """Returns the counters of the session's peer as last counted, or None if they were never counted."""
        return self._packed.baseline(row)

    def live_by_tier(self) -> dict[Tier, int]:
        """Counts the sessions that are not closing by the tier that they were opened with."""
        counts: dict[Tier, int] = {}
        for (tier, _, _, _, _, state, *_), many in self._packed.traits():
            if state is State.LIVE:
                counts[tier] = counts.get(tier, 0) + many
        return counts

    def number_of_devices(self) -> int:
        """Counts the sessions of devices that are not closing."""
        return self._packed.number_of_devices(self.closing)

    def counted_only_in(self, boot_id: str) -> bool:
        """Tells whether all sessions were last counted in this boot."""
        return all(self._packed.boots.values[number] == boot_id for number in self._counted_in)

    def first_counted_ms(self, owner: Owner) -> int:
        """Returns up to when the account's session was counted that was counted first of those that carry.

        It has one that carries.
        """
        if owner.first_ms is None:
            owner.first_ms = min(self._counted_until(owner))
        return owner.first_ms

    def ran_ms(self, owner: Owner, from_ms: int, now_ms: int) -> int:
        """Returns how long the account's sessions that carry have run from an instant on, and since they were counted.

        Looks at each of them when another instant is asked for than before, by more than the clocks drift.
        """
        if owner.mark is None or abs(owner.mark.at_ms - from_ms) > DRIFT_MS:
            owner.mark = WindowMark.of(from_ms, self._counted_until(owner))
        return owner.mark.ran_ms(from_ms, owner.carrying, now_ms)

    def _counted_until(self, owner: Owner) -> Iterator[int]:
        buffer, at = self._packed.memory.buffer, layout.COUNTED_UNTIL_AT
        unpack = layout.NUMBER.unpack_from
        rows = (row for row in self.owners.rows(owner) if row in self._carrying)
        return (unpack(buffer, row * ROW_SIZE + at)[0] for row in rows)

    def stopped_of(self, owner: Owner, now_ms: int) -> list[tuple[int, int]]:
        """Returns up to when those of the account's sessions were counted that have stopped, and when they did."""
        self._stop(now_ms)
        return [self._packed.carried(row) for row in self._stopped.get(owner.number, ())]

    def stopped(self, now_ms: int, most: int) -> list[int]:
        """Returns some of all that have stopped, in the order of their addresses."""
        self._stop(now_ms)
        rows = (row for rows in self._stopped.values() for row in rows)
        return nsmallest(most, rows, self._packed.address_offset)

    def _stop(self, now_ms: int) -> None:
        """Takes those whose tunnels can carry no longer out of the order and the sums."""
        for row in self._carrying.up_to(now_ms):
            owner = self.owner(row)
            self._carrying.remove(row)
            owner.remove(self._packed.carried(row)[0])
            self._stopped.setdefault(owner.number, set()).add(row)

    # Changes ------------------------------------------------------------------------------------------

    def put(self, session: Session) -> None:
        """Adds a session, or replaces the one with its key, whose baseline stays.

        Raises ValueError if another session has its id, or if its key is none; KeyError if its account is not known.
        Nothing has changed then.
        """
        id_, owner = ids.as_bytes(session.id, ids.SESSION_PREFIX), self.owners.of(session.account_id)
        if len(session.public_key) != layout.KEY_SIZE:
            raise ValueError(f"a key has {layout.KEY_SIZE} bytes, not {len(session.public_key)}")
        row, of_id = self.find(session.public_key), self._by_id.find(id_[0])
        if of_id not in (row, -ENOENT):
            raise ValueError(f"two sessions have the id {session.id}")
        if row >= 0:
            self._empty(row)
            self._fill(row, session, id_, owner)
        else:
            row = self._packed.begin()
            self._fill(row, session, id_, owner)
            self._by_key.put(row)

    def drop(self, row: int) -> None:
        """Removes the session in this row, with its baseline."""
        self._empty(row)
        self._packed.set_baseline(row, None)
        self._by_key.remove(row)
        self.expiries.remove(row)
        self._packed.memory.give(row)

    def update_account(self, account: Account) -> None:
        """Replaces an account, or adds it. Its sessions are ordered by the tier that it has now."""
        self.owners.add(account)
        owner = self.owners.of(account.id)
        moved = [] if owner.account.tier is account.tier else self.owners.rows(owner)
        for row in moved:
            self._by_tier[owner.order].remove(row)
        self.owners.replace(owner, account)
        for row in moved:
            self._by_tier[owner.order].put(row, self._packed.quiet_since(row))

    def set_baseline(self, row: int, baseline: Baseline | None) -> None:
        """Replaces the counters as last counted; None: they start at zero again."""
        self._packed.set_baseline(row, baseline)

    def count(self, row: int, after: Session) -> None:
        """Takes over the figures of the session, and nothing else of it."""
        at, boots = row * ROW_SIZE + FIGURES_AT, self._packed.boots
        number, _, _, _, _, quiet_ms, _, until_ms, _, quiet_in, counted_in, _ = FIGURES.unpack_from(
            self._packed.memory.buffer, at
        )
        if boots.values[quiet_in] != after.quiet_boot_id:
            quiet_in = boots.exchange(quiet_in, after.quiet_boot_id)
        if boots.values[counted_in] != after.counted_boot_id:
            self._note_boot(counted_in, -1)
            counted_in = boots.exchange(counted_in, after.counted_boot_id)
            self._note_boot(counted_in, 1)
        self._packed.set_figures(row, after, quiet_in, counted_in)
        owner = self.owners.by_number[number]
        self._recount(row, owner, until_ms, after)
        if after.quiet_since_ms != quiet_ms:
            self._by_tier[owner.order].put(row, after.quiet_since_ms)

    def _recount(self, row: int, owner: Owner, before_ms: int, after: Session) -> None:
        if row in self._carrying and after.carries_until_ms > after.counted_until_ms:
            owner.recount(before_ms, after.counted_until_ms)
            self._carrying.put(row, after.carries_until_ms)
        else:
            self._count_out(row, owner, before_ms)
            self._count_in(row, owner, after)

    def _count_in(self, row: int, owner: Owner, session: Session) -> None:
        """Adds a session to the sums, if its tunnel can carry."""
        if session.carries_until_ms > session.counted_until_ms:
            self._carrying.put(row, session.carries_until_ms)
            owner.add(session.counted_until_ms)

    def _count_out(self, row: int, owner: Owner, counted_until_ms: int) -> None:
        """Takes a session out of the sums, if it is there."""
        if row in self._carrying:
            self._carrying.remove(row)
            owner.remove(counted_until_ms)
        elif (stopped := self._stopped.get(owner.number)) is not None:
            stopped.discard(row)
            if not stopped:
                del self._stopped[owner.number]

    # One session --------------------------------------------------------------------------------------

    def _fill(self, row: int, session: Session, id_: tuple[bytes, bool], owner: Owner) -> None:
        counted_boot = self._packed.pack(row, session, id_, owner)
        self._by_id.put(row)
        self.owners.link(owner, row)
        owner.sessions += 1
        self._count_in(row, owner, session)
        self._note_boot(counted_boot, 1)
        self.expiries.put(row, session.expires_at)
        self._by_tier[owner.order].put(row, session.quiet_since_ms)
        if session.state is State.CLOSING:
            self.closing.add(row)
            owner.closing += 1

    def _empty(self, row: int) -> None:
        figures = FIGURES.unpack_from(self._packed.memory.buffer, row * ROW_SIZE + FIGURES_AT)
        number, _, _, _, _, _, _, until_ms, _, _, counted_boot, _ = figures
        owner = self.owners.by_number[number]
        if row in self.closing:
            self.closing.discard(row)
            owner.closing -= 1
        self._by_tier[owner.order].remove(row)
        self._note_boot(counted_boot, -1)
        self._count_out(row, owner, until_ms)
        owner.sessions -= 1
        self.owners.unlink(owner, row)
        self._by_id.remove(row)
        self._packed.clear(row)

    def _note_boot(self, number: int, more: int) -> None:
        self._counted_in[number] = many = self._counted_in.get(number, 0) + more
        if not many:
            del self._counted_in[number]
