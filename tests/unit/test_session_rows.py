"""Sessions as rows, against plain dictionaries; and what each takes in memory."""

from __future__ import annotations

import tracemalloc
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule
from msgspec import structs

from appliance.domain import ids
from appliance.domain.accounting import Reading
from appliance.domain.charges import Amount
from appliance.domain.clock import Moment
from appliance.domain.entities import Account, Baseline, Reason, Session, State
from appliance.domain.pricing import Rates
from appliance.domain.tiers import Tier
from appliance.store.live import LiveSessions
from appliance.store.rows.session_rows import SessionRows
from tests.support.unit.a_session import A_SESSION
from tests.support.unit.session_rows import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST = 2**63 - 1
NOW = Moment(0, 0, "boot")
ACCOUNTS = [Account(f"acc_{n}", name, tier, False, n) for n, (name, tier) in enumerate(zip("aäb", Tier, strict=True))]
A_CROWD = 70  # rows, orders and indices begin with 64 places
MANY = 20_000
ROWS_TAKE = 240  # bytes a session: its row, its places in orders and indices
PYTHON_TAKES = 150  # and its share of its account, of which each has four sessions

instants = st.sampled_from((0, 1, 77, 78, 5000, 2**31, 2**31 + 5, 2**32, MOST)) | st.integers(0, MOST)
numbers = st.sampled_from((0, 1, 77, 2**31, 2**32, MOST)) | st.integers(0, MOST)
texts = st.sampled_from(("", "boot", "bye", "schöner Gruß \U0001f44b", "\ud800")) | st.text(max_size=8)
keys = st.integers(0, 6).map(lambda n: bytes([n]) * 32)
session_ids = st.sampled_from(
    [f"ses_{n:024x}" for n in (0, 1, 0xABC << 84)] + ["ses_1", "ses_" + "AB" * 12, f"{1:024x}", "", "ses_" + " 0" * 12]
)
figures = {
    "bytes_in": numbers,
    "bytes_out": numbers,
    "last_handshake_at": st.none() | numbers,
    "handshake_seen_ns": numbers,
    "quiet_since_ms": numbers,
    "quiet_boot_id": texts,
    "counted_ms": numbers,
    "counted_until_ms": instants,
    "counted_boot_id": st.sampled_from((*["boot"] * 30, "before", "")),
    "carries_until_ms": instants,
}
sessions = st.builds(
    structs.replace,
    st.just(A_SESSION),
    id=session_ids,
    account_id=st.sampled_from([account.id for account in ACCOUNTS]),
    account=texts,
    tier=st.sampled_from(Tier),
    account_tier=st.sampled_from(Tier),
    region=texts,
    public_ip=texts,
    public_key=keys,
    address_offset=numbers,
    ipv6=st.booleans(),
    state=st.sampled_from((State.LIVE, State.CLOSING)),
    created_at=numbers,
    expires_at=numbers,
    rates=st.none() | st.builds(Rates, texts, numbers, numbers),
    reason=st.none() | st.sampled_from(Reason),
    note=texts,
    terminated_at=st.none() | numbers,
    told=texts,
    **figures,
)
baselines = st.builds(Baseline, texts, numbers, numbers, numbers)


class Sessions(RuleBasedStateMachine):
    """Whatever is added, replaced, counted and dropped, rows answer as dictionaries do."""

    rows = Bundle("rows")

    def __init__(self) -> None:
        super().__init__()
        self.live = LiveSessions()
        self.live.load(SessionRows(ACCOUNTS), NOW)
        self.plain: dict[bytes, Session] = {}
        self.baselines: dict[bytes, Baseline] = {}
        self.tiers = {account.id: account.tier for account in ACCOUNTS}
        self.now, self.window_ms = NOW, 0

    @contextmanager
    def refused(self, error: type[Exception]) -> Iterator[None]:
        """Memory that cannot follow the store is read again; nothing else of it has changed."""
        with pytest.raises(error):
            yield
        assert not self.live.in_sync
        assert {s.public_key: s for s in self.live} == self.plain
        self.reload()

    @rule(target=rows, session=sessions)
    def put(self, session: Session) -> bytes:
        holder = next((key for key, s in self.plain.items() if s.id == session.id), session.public_key)
        if holder != session.public_key:
            with self.refused(ValueError):
                self.live.put(session)
        else:
            self.live.put(session)
            self.plain[session.public_key] = session
        return session.public_key

    @rule(session=sessions, short=st.booleans())
    def put_what_is_none(self, session: Session, *, short: bool) -> None:
        key, account = (session.public_key[1:], "acc_0") if short else (session.public_key, "acc_unknown")
        with self.refused(ValueError if short else KeyError):
            self.live.put(structs.replace(session, public_key=key, account_id=account))

    @rule(account=st.sampled_from(ACCOUNTS), tier=st.sampled_from(Tier))
    def change_tier(self, account: Account, tier: Tier) -> None:
        self.live.apply_count([], {account.id: structs.replace(account, tier=tier)})
        self.tiers[account.id] = tier

    @precondition(lambda self: len(self.plain) < A_CROWD)
    @rule(session=sessions)
    def put_a_crowd(self, session: Session) -> None:
        """More than there is room for at first, so that memory, indices and orders grow around those that are there."""
        for n in range(A_CROWD):
            account = ACCOUNTS[n % len(ACCOUNTS)].id
            crowded = structs.replace(session, id=f"ses_{n:023x}f", public_key=b"%32d" % n, account_id=account)
            self.live.put(crowded)
            self.plain[crowded.public_key] = crowded

    @precondition(lambda self: len(self.plain) >= A_CROWD)
    @rule(every=st.integers(1, 3))
    def drop_of_the_crowd(self, every: int) -> None:
        for key in [key for key in self.plain if key[0] == ord(" ")][::every]:
            self.live.drop(key)
            del self.plain[key]

    @rule(key=consumes(rows))
    def drop(self, key: bytes) -> None:
        if self.plain.pop(key, None) is None:
            with self.refused(KeyError):
                self.live.drop(key)
        else:
            self.live.drop(key)
            self.baselines.pop(key, None)

    @rule(key=rows, baseline=st.none() | baselines, changes=st.fixed_dictionaries({}, optional=figures))
    def count(self, key: bytes, baseline: Baseline | None, changes: dict[str, object]) -> None:
        if key in self.plain:
            self.plain[key] = structs.replace(self.plain[key], **changes)
            after = structs.replace(self.plain[key], state=State.LIVE, reason=None)  # these may be older
            self.live.apply_count([Reading(Amount(), 0, 0, after, baseline)], {})
            if baseline is not None:
                self.baselines[key] = baseline

    @rule(key=rows)
    def forget_baseline(self, key: bytes) -> None:
        self.live.drop_baselines([key])
        self.baselines.pop(key, None)

    @rule(until_ms=instants, window_ms=st.sampled_from((0, 2**31, 2**32)))  # further apart than clocks drift
    def wait(self, until_ms: int, window_ms: int) -> None:
        """The boot clock goes on, and some tunnels carry no longer; another window of session time begins."""
        self.now, self.window_ms = Moment(0, max(self.now.boot_ms, until_ms), "boot"), window_ms

    def is_stopped(self, session: Session) -> bool:
        """Tells whether its tunnel could carry after it was counted, and no longer can."""
        return session.counted_until_ms < session.carries_until_ms <= self.now.boot_ms

    @rule()
    def reload(self) -> None:
        accounts = [structs.replace(account, tier=self.tiers[account.id]) for account in ACCOUNTS]
        self.live.load(rows_of(self.plain.values(), accounts, self.baselines), NOW)

    @invariant()
    def found(self) -> None:
        live, plain = self.live, self.plain
        assert {s.public_key: s for s in live} == plain
        assert live.public_keys() == plain.keys()
        assert len(live) == len(plain)
        for key in (bytes([n]) * 32 for n in range(7)):
            assert live.get(key) == plain.get(key)
            assert live.baseline(key) == self.baselines.get(key)
        assert {s.id: live.by_id(s.id) for s in plain.values()} == {s.id: s for s in plain.values()}
        assert live.by_id("ses_2") is live.by_id("ses_" + "ab" * 12) is live.get(b"short") is None

    @invariant()
    def accounts(self) -> None:
        for account in ACCOUNTS:
            own = [s for s in self.plain.values() if s.account_id == account.id]
            assert {s.id: s for s in self.live.of_account(account.id)} == {s.id: s for s in own}
            assert self.live.number_of(account.id) == len(own)
            assert self.live.number_live(account.id) == sum(s.state is State.LIVE for s in own)
            boots = {s.counted_boot_id for s in self.plain.values()}
            sums = self.live.running(account.id, self.now)
            if boots - {"boot"}:
                assert sums is None
                continue
            assert sums is not None
            until = [s.counted_until_ms for s in own if s.carries_until_ms > max(s.counted_until_ms, self.now.boot_ms)]
            assert (sums.number, sums.counted_until_ms, sums.first_ms) == (
                *(len(until), sum(until), min(until, default=None)),
            )
            assert sorted(sums.stopped) == sorted(
                (s.counted_until_ms, s.carries_until_ms) for s in own if self.is_stopped(s)
            )
            ran_ms = sum(max(0, self.now.boot_ms - max(ms, self.window_ms)) for ms in until if ms <= self.now.boot_ms)
            if all(ms <= self.now.boot_ms for ms in until) and self.window_ms <= self.now.boot_ms:
                assert self.live.ran_ms(account.id, self.window_ms, self.now.boot_ms) == ran_ms
        tiers = [s.tier for s in self.plain.values() if s.state is State.LIVE]
        assert self.live.live_by_tier() == {tier: tiers.count(tier) for tier in set(tiers)}

    @invariant()
    def due(self) -> None:
        every = self.plain.values()
        assert self.live.next_expiry() == min((s.expires_at for s in every), default=None)
        for limit in (0, 77, 2**32, MOST):
            idle = {s.public_key for s in every if self.tiers[s.account_id] is Tier.FREE and s.quiet_since_ms < limit}
            over = {s.public_key for s in every if s.state is State.CLOSING or s.expires_at <= limit}
            assert set(self.live.due(Moment(limit, limit + 5, "boot"), {Tier.FREE: 5, Tier.PAID: 0})) == idle | over

    @invariant()
    def stopped(self) -> None:
        stopped = sorted((s.address_offset, s.public_key) for s in self.plain.values() if self.is_stopped(s))
        assert sorted(self.live.stopped(self.now, 1000)) == sorted(key for _, key in stopped)
        first = [self.plain[key].address_offset for key in self.live.stopped(self.now, 2)]
        assert first == [offset for offset, _ in stopped[:2]]


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def many(random: Random) -> list[Session]:
    return [
        structs.replace(
            A_SESSION,
            id=ids.session_id(),
            account_id=f"acc_{n // 4:024x}",
            account=f"user{n // 4}",
            public_key=random.randbytes(32),
            address_offset=2 + n,
            expires_at=10**12 + n,
            counted_until_ms=10**7 + n % 1000,
            quiet_since_ms=10**7 + n % 100,
        )
        for n in range(MANY)
    ]


def test_what_a_session_takes(show: Callable[[str], None]) -> None:
    """Of 20,000 sessions with baselines, each takes a few hundred bytes; and no more after all have been counted."""
    random = Random(1)  # noqa: S311
    every = many(random)
    named = {s.account_id: s.account for s in every}
    read = {s.public_key: Baseline("boot", 7, random.getrandbits(40), random.getrandbits(40)) for s in every}
    tracemalloc.start()
    accounts = [Account("".join((id_, "")), name, Tier.FREE, False, 10**12) for id_, name in named.items()]
    rows = rows_of(every, accounts, read)
    python, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    show(f"a session: {rows.nbytes / MANY:.0f} bytes of rows, {python / MANY:.0f} of Python's")
    assert rows.nbytes <= ROWS_TAKE * MANY
    assert python <= PYTHON_TAKES * MANY
    live = LiveSessions()
    live.load(rows, NOW)
    for ms in range(3):
        moved = [structs.replace(s, counted_until_ms=10**8 + ms, quiet_since_ms=10**8 + ms) for s in every]
        live.apply_count([Reading(Amount(), 0, 0, s, Baseline("boot", 7, ms, ms)) for s in moved], {})
    assert rows.nbytes <= ROWS_TAKE * MANY


def test_what_sessions_had_in_common_is_forgotten() -> None:
    """Addresses, notes and boots that no session has any more take no memory, and rows are used again."""
    rows = rows_of([], ACCOUNTS)
    taken = set()
    for n in range(1000):
        session = structs.replace(
            A_SESSION, id=f"ses_{n}", account_id="acc_0", public_ip=f"192.0.2.{n}", note=str(n), quiet_boot_id=str(n)
        )
        rows.put(session)
        row = rows.find(session.public_key)
        rows.set_baseline(row, Baseline(f"boot {n}", 1, 2, 3))
        rows.count(row, structs.replace(session, counted_boot_id=f"boot {-n}"))
        if n % 2:
            rows.drop(row)
        taken.add(rows.nbytes)
    assert len(taken) == 1
    assert rows.values_in_common <= 4
    assert len(rows) == 0
