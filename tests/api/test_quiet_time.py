"""Time of sessions that nothing moves: derived by whoever reads, and the same as if it were counted all the time."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from appliance.config.load import parse_settings
from appliance.domain.invoice import differences
from appliance.domain.tiers import Tier
from appliance.metering import invoices, meter
from appliance.metering.usage import Quotas
from appliance.store.known_time import believed_clock
from appliance.store.queries import accounts as account_rows
from appliance.store.queries.invoices import rates
from tests.support.api.exit_under_test import CONFIG, Client, ExitUnderTest, new_key, on_exit, serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

HOUR = 3600
PRICES = '[pricing]\ncurrency = "eur"\nmillicents_per_minute = 1001\nmillicents_per_gib = 7\n'
UNLIMITED = "max_live_sessions = 0\nidle_timeout = 0\nseconds_limit = 0\nbytes_limit = 0\n"
TERMS = (
    f'{PRICES}[tiers.paid]\n{UNLIMITED}seconds_window = "5h"\nbytes_window = "3h"\n'
    f'[tiers.free]\n{UNLIMITED}seconds_window = "1h"\nbytes_window = "2h"\n'
)
OTHER_TERMS = TERMS.replace('"5h"', '"50m"').replace('"1h"', '"7h"')
PAGE = 4096 + 24  # a frame of the WAL. https://www.sqlite.org/fileformat2.html#the_write_ahead_log
MANY = 2000
PRICED = f"{PRICES}[tiers.paid]\n{UNLIMITED}"
ROOM = f'subnet = "10.101.0.0/16"\n{PRICED}'
MORE = """
WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?)
INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state, created_at,
    expires_at, quiet_since_ms, quiet_boot_id, currency, millicents_per_minute, millicents_per_gib)
SELECT 'ses_' || lower(hex(randomblob(12))), account_id, tier, region, public_ip, randomblob(32), address_offset + n,
    ipv6, state, created_at + n, expires_at, quiet_since_ms, quiet_boot_id, currency, millicents_per_minute,
    millicents_per_gib
FROM sessions, n WHERE number = 1
"""
THEIR_PEERS = """
INSERT INTO peers (address_offset, bytes_in, bytes_out, handshake_seen_ns, counted_ms, counted_until_ms,
    counted_boot_id, quiet_since_ms)
SELECT s.address_offset, 0, 0, 0, 0, p.counted_until_ms, p.counted_boot_id, p.quiet_since_ms
FROM sessions s, peers p ON s.number > 1
"""


async def shown(exit_: ExitUnderTest) -> dict[str, Any]:
    """What another process reads of the store: use, and the invoices of all months; by account."""
    clock = await believed_clock(exit_.store, exit_.clock)
    async with exit_.store.read() as db:
        every = await account_rows.everyone(db)
    order = {row[0]: number for number, row in enumerate(exit_.rows("SELECT id FROM sessions ORDER BY number"))}
    found: dict[str, Any] = {}
    for account in every:
        use = await Quotas(exit_.store, None, exit_.parts.services.terms, clock).of(account)
        bills: list[object] = []
        for month in ("2026-08", "2026-09", "2026-10", "2026-11"):
            async with exit_.store.snapshot() as db:
                invoice = await invoices.read(db, account, month, clock)
                days = await invoices.days(db, invoice)
                wrong = differences(month, invoice.lines, days, await rates(db, order))
            assert not wrong, wrong
            lines = [(order[x.session_id], x.started_at, x.ended_at, str(x.charge)) for x in invoice.lines]
            bills.append(sorted(lines))
            bills.append(sorted((order[session_id], *map(str, each)) for session_id, each in days.items()))
        found[account.name] = (use, bills)
    return found


@dataclass
class History:
    """The same happens to two exits. On `counted`, all time is counted at each tick."""

    quiet: ExitUnderTest
    counted: ExitUnderTest
    random: Random
    clients: dict[str, tuple[Client, Client]] = field(default_factory=dict)
    opened: list[tuple[str, bytes, str, str]] = field(default_factory=list)  # account, key, and its id on each

    async def both(self, do: Callable[[ExitUnderTest], Awaitable[object]]) -> None:
        await do(self.quiet)
        await do(self.counted)

    async def tick(self, after: float, *, whole: bool = True) -> None:
        for exit_ in (self.quiet, self.counted):
            exit_.clock.advance(after)
            await exit_.parts.ticker.tick(whole=whole)
        meter_, live = self.counted.parts.meter, self.counted.parts.live
        if live.in_sync:
            await meter_._settle(lambda _: True)

    async def open(self) -> None:
        name = self.random.choice(list(self.clients))
        text, raw = new_key()
        one, other = [await client.open(client_public_key=text) for client in self.clients[name]]
        self.opened.append((name, raw, one["id"], other["id"]))

    async def close(self) -> None:
        if self.opened:
            name, _, one, other = self.opened.pop(self.random.randrange(len(self.opened)))
            for client, session_id in zip(self.clients[name], (one, other), strict=True):
                assert (await client.delete(session_id)).status_code == 200

    async def use(self, *, moving: bool) -> None:
        """Some clients shake hands; some of those, and others, move something."""
        for _, raw, *_ in self.random.choices(self.opened, k=min(2, len(self.opened))):
            size = self.random.choice((0, 1, 2**31)) if moving else 0
            shakes = self.random.random() < 0.5
            await self.both(lambda e, raw=raw, size=size, shakes=shakes: _use(e, raw, size, shakes=shakes))  # type: ignore[misc]

    async def move(self) -> None:
        """Some looks later the traffic is seen, and some later it is committed, by whatever comes."""
        for _ in range(self.random.randint(1, 4)):
            await self.use(moving=True)
            await self.tick(self.random.choice((1, 2, 4, 200)), whole=False)
        ending = self.random.choice((None, None, None, self.set_clock, self.be_away, self.close))
        await (self.tick(self.random.choice((1, 5))) if ending is None else ending())

    async def wait(self) -> None:
        step = self.random.choice((10, 60, 600))
        shaking = self.random.random()
        for _ in range(self.random.randint(1, 30)):
            if self.random.random() < shaking:
                await self.use(moving=False)
            await self.tick(step)

    async def be_away(self) -> None:
        away = self.random.choice((1, 300, 2 * HOUR))
        shaken_after = self.random.choice((None, 0, 0.3, 1))  # a part of the absence

        async def be_away(exit_: ExitUnderTest) -> None:
            exit_.clock.advance(away)
            await exit_.restart()

        if shaken_after is None:
            await self.both(be_away)
            return
        for exit_ in (self.quiet, self.counted):
            exit_.clock.advance(away * shaken_after)
        await self.use(moving=True)
        away *= 1 - shaken_after
        await self.both(be_away)

    async def reboot(self) -> None:
        await self.tick(self.random.choice((1, 10)))  # as far as heartbeats go
        off = self.random.choice((30, HOUR))

        async def reboot(exit_: ExitUnderTest) -> None:
            exit_.clock.reboot(off)
            exit_.tunnel.vanish()
            await exit_.restart()

        await self.both(reboot)

    async def set_clock(self) -> None:
        by_ms = 1000 * self.random.choice((-3 * HOUR, -60, 5, 240, HOUR, 30 * HOUR))
        for exit_ in (self.quiet, self.counted):
            exit_.clock.wall_ms += by_ms
        await self.tick(self.random.choice((0, 1)), whole=self.random.random() < 0.5)

    async def change_tier(self) -> None:
        name, tier = self.random.choice(list(self.clients)), self.random.choice(["free", "paid"])
        await self.tick(0)  # as far as heartbeats go
        await self.both(lambda e: e.admin("UPDATE accounts SET tier = ? WHERE name = ?", tier, name))
        await self.tick(0)

    async def change_terms(self) -> None:
        """By SIGHUP, or by a stop and a start with another configuration."""
        read = parse_settings(CONFIG + self.random.choice((TERMS, OTHER_TERMS)), {}, "host")
        reloaded = self.random.random() < 0.5

        async def change(exit_: ExitUnderTest) -> None:
            await exit_.parts.ticker.settle(read.tiers if reloaded else None)
            exit_.settings = read
            if reloaded:
                exit_.parts.services.terms.take_over(read)
            else:
                await exit_.restart()

        await self.tick(0)
        await self.both(change)
        await self.tick(0)


async def _use(exit_: ExitUnderTest, raw: bytes, size: int, *, shakes: bool) -> None:
    if raw in exit_.tunnel.peers:
        exit_.tunnel.add_traffic(raw, rx=size, handshake_ns=exit_.clock.wall_ms * 10**6 if shakes else None)


async def crowd(exit_: ExitUnderTest) -> Client:
    """MANY live sessions of one paid account, whose tunnels carry."""
    ada = await exit_.client()
    await ada.open()
    with sqlite3.connect(exit_.path) as db:
        db.execute(MORE, (MANY - 1,))
        db.execute(THEIR_PEERS)
    db.close()
    await exit_.restart()
    await exit_.shake(*exit_.tunnel.peers)
    await exit_.tick()
    return ada


def written(exit_: ExitUnderTest) -> int:
    """Pages written to the WAL since it was last emptied, which this does."""
    pages = (exit_.path.parent / f"{exit_.path.name}-wal").stat().st_size // PAGE
    with sqlite3.connect(exit_.path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return pages


@on_exit(ROOM)
async def test_a_quiet_minute_writes_heartbeats_alone(exit_: ExitUnderTest, show: Callable[[str], None]) -> None:
    """However many sessions are quiet, what is written is one page for each whole tick."""
    await crowd(exit_)
    written(exit_)
    ticks = 30
    for _ in range(ticks):
        await exit_.tick(after=10)
        assert exit_.parts.node.health.fault is None, exit_.parts.node.health.fault
    pages = written(exit_)
    show(f"{MANY} quiet sessions: {pages} pages in {ticks} whole ticks")
    assert pages == ticks
    assert exit_.rows("SELECT max(counted_ms) FROM peers") == [(0,)]


@on_exit(ROOM, reject_after_ms=180_000)
async def test_written_once_they_carry_no_longer(exit_: ExitUnderTest, show: Callable[[str], None]) -> None:
    """Time of sessions whose tunnels carry no longer is written once, some sessions a tick, neighbours in the file
    together; it ends when they did."""
    await crowd(exit_)
    exit_.clock.advance(170)
    await exit_.tick()
    assert exit_.rows("SELECT max(counted_ms) FROM peers") == [(0,)]
    written(exit_)
    stopped = []
    for _ in range(MANY // meter.STOPPED_AT_ONCE + 2):
        await exit_.tick(after=10)
        assert exit_.parts.node.health.fault is None, exit_.parts.node.health.fault
        stopped.append(exit_.rows("SELECT count(*) FROM peers WHERE counted_ms = 180000")[0][0])
    pages = written(exit_)
    show(f"{MANY} sessions that carry no longer: {pages} pages")
    steps = [after - before for before, after in pairwise([0, *stopped])]
    assert steps == [*[meter.STOPPED_AT_ONCE] * (MANY // meter.STOPPED_AT_ONCE), 0, 0]
    assert exit_.rows("SELECT DISTINCT counted_ms FROM peers") == [(180_000,)]
    assert pages < MANY / 2


@on_exit(PRICED)
async def test_closed_while_its_peer_is_missing(exit_: ExitUnderTest) -> None:
    """Another program has removed the peer, and the client ends its session before the peer is restored: the hours that
    have not been written count, up to when the peer may have been missing."""
    ada, (text, raw) = await exit_.client(), new_key()
    opened = await ada.connect(client_public_key=text)
    for _ in range(5):
        await exit_.tick(after=HOUR)
    del exit_.tunnel.interface.peers[raw]
    exit_.clock.advance(0.5)
    assert (await ada.delete(opened["id"])).status_code == 200
    assert exit_.rows("SELECT state, counted_ms FROM sessions") == [("terminated", 5000 * HOUR)]
    assert exit_.rows("SELECT seconds FROM invoice_lines") == [(5 * HOUR,)]


@on_exit(PRICED)
async def test_closing_while_the_subnet_changes(exit_: ExitUnderTest) -> None:
    """Sessions that were closing when the server was killed end where another subnet is taken over: time that has not
    been written counts up to the last heartbeat, for their account and on an invoice whose lines end."""
    ada = await exit_.client()
    await ada.connect()
    for _ in range(5):
        await exit_.tick(after=HOUR)
    await exit_.stop()
    with sqlite3.connect(exit_.path) as db:
        db.execute("UPDATE sessions SET state = 'closing', reason = 'admin'")
    db.close()
    exit_.settings = parse_settings(f'{CONFIG}subnet = "10.99.0.0/16"\n{PRICED}', {}, "host")
    exit_.tunnel = type(exit_.tunnel)(exit_.tunnel.interface)
    exit_.clock.advance(HOUR)
    await exit_.start()
    assert exit_.rows("SELECT state, counted_ms FROM sessions") == [("terminated", 5000 * HOUR)]
    assert exit_.rows("SELECT seconds, ended_at FROM invoice_lines") == [(5 * HOUR, exit_.clock.wall_ms)]
    assert (await exit_.parts.services.quotas.of(ada.account)).seconds_used == 5 * HOUR
    assert exit_.rows("SELECT * FROM peers") == []


@on_exit(TERMS)
async def test_other_windows_after_a_commit_that_failed(exit_: ExitUnderTest) -> None:
    """Where memory may differ from the store, it is read again before other windows are taken over."""
    await (await exit_.client()).connect()
    for _ in range(3):
        await exit_.tick(after=HOUR)
    exit_.parts.live.mark_stale()
    await exit_.parts.ticker.settle(parse_settings(CONFIG + OTHER_TERMS, {}, "host").tiers)
    assert exit_.rows("SELECT counted_ms FROM peers") == [(3000 * HOUR,)]


@on_exit(TERMS)
async def test_another_tier_after_a_commit_that_failed(exit_: ExitUnderTest) -> None:
    """So it is before another tier of an account is: half an hour was used of the window that had begun at 14:20."""
    ada = await exit_.client(tier=Tier.FREE)
    await ada.connect()
    for _ in range(5):
        await exit_.tick(after=HOUR / 2)
    exit_.parts.live.mark_stale()
    await exit_.admin("UPDATE accounts SET tier = 'paid'")
    await exit_.tick()
    assert (await exit_.parts.services.quotas.of(ada.account)).seconds_used == HOUR // 2


@on_exit(PRICED)
async def test_set_back_after_it_was_opened(exit_: ExitUnderTest) -> None:
    """A session that is older, by the clock as it was, than by the one that was set back: its days are what they would
    be, had it been counted all the time."""
    await exit_.tick(after=8 * HOUR + 40 * 60)  # it is 23:00
    ada = await exit_.client()
    opened = await ada.connect()
    exit_.clock.step(-3 * HOUR)
    await exit_.tick(after=1)
    await exit_.tick(after=5 * HOUR)
    assert (await ada.delete(opened["id"])).status_code == 200
    days = exit_.rows("SELECT day, counted_ms / 1000 FROM usage_days ORDER BY day")
    assert days == [("2026-09-21", 4 * HOUR), ("2026-09-22", HOUR + 1)]


WEIGHTS = {"open": 5, "close": 2, "move": 5, "wait": 8, "be_away": 1, "reboot": 1, "set_clock": 2}
WEIGHTS |= {"change_tier": 1, "change_terms": 1}


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(n, marks=pytest.mark.long) for n in range(4, 60))])
def test_as_if_it_were_counted_all_the_time(tmp_path: Path, seed: int) -> None:
    """Whatever happens, readers of a store whose quiet sessions are not counted see, at any moment, what they see where
    all sessions are counted at each tick: each day, each line, each window."""

    # With the short time, tunnels stop and carry again between two commits.
    reject_ms = 180_000 if seed % 2 else 3_000

    async def story() -> None:
        async with AsyncExitStack() as stack:
            exits = []
            for name in ("quiet", "counted"):
                (tmp_path / name).mkdir()
                exits.append(
                    await stack.enter_async_context(serving(tmp_path / name, TERMS, reject_after_ms=reject_ms))
                )
            random = Random(seed)  # noqa: S311 (a test's choices)
            history = History(exits[0], exits[1], random)
            for name, tier in (("ada", Tier.PAID), ("bob", Tier.FREE)):
                history.clients[name] = (await exits[0].client(name, tier), await exits[1].client(name, tier))
            done = []
            for kind in random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=25):
                await getattr(history, kind)()
                done.append(kind)
                one, other = await shown(exits[0]), await shown(exits[1])
                assert one == other, done
                used = await exits[0].parts.services.quotas.of(history.clients["ada"][0].account)
                assert used == one["ada"][0], done

    asyncio.run(story())
