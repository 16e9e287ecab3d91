"""Computes how far a fleet goes, from what one beat, one claim, one report and one account cost on this machine.

`python -m tests.bench.fleet_scale`: measures the costs in processor time, with a real nats-server and the appliance's
own parts, and prints what fleets of 3 to 1,000 exits come to. The fleets themselves are not run.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import click
import msgspec
from msgspec.structs import replace
from nats.js import JetStreamContext

from appliance.domain.clock import HostClock, Moment
from appliance.fleet.accounts.ledger import SyncLedger
from appliance.fleet.accounts.sync_messages import SyncAnswer, SyncRequest
from appliance.fleet.claims.claims import KEY_LAPSES_MS, KeyClaimLedger, NewClaims
from appliance.fleet.claims.kv import KvRecords
from appliance.fleet.claims.messages import ClaimKey
from appliance.fleet.claims.own_claims import RENEW_MS
from appliance.fleet.hub.config import member_inbox
from appliance.fleet.link.nkey import NKey
from appliance.fleet.presence import beats
from appliance.fleet.presence.directory import Directory
from appliance.fleet.quota.holder import QUIET_MS, REFRESH_MS
from appliance.fleet.reports.fold import AT_ONCE, Fold
from appliance.store.queries import fleet_reports
from tests.bench.fleet_fold import MadeUp, opened
from tests.bench.processes import busy_s
from tests.support.fleet.members import a_beat, a_member
from tests.support.fleet.real_hub import real_hub

if TYPE_CHECKING:
    from appliance.fleet.membership.members import FleetMember
    from appliance.fleet.presence.beats import Beat
    from tests.support.fleet.real_hub import RealHub

EXITS = (3, 10, 30, 100, 300, 1000)
LIVE = 2000  # sessions of an exit, each of an account of its own that has limits
BUSY = 0.1  # of them, at once
OPENS = 1.0  # of an exit, each second
ACCOUNTS = 1_000_000
CONNECTED, BEATS = 12, 150  # of the measurement
HEARD, CLAIMS, COPIED = 20_000, 1000, 20_000
HISTORY, REPORTS = 60_000, 20_000  # a report among few costs a third


@dataclass(frozen=True, slots=True)
class Costs:
    """Holds seconds of a processor, and bytes. `server_...`: nats-server's; the others are the appliance's."""

    server_beat: float
    server_delivery: float
    beat_bytes: int
    heard: float
    server_claim: float
    claim: float
    claim_bytes: float
    report: float
    folded_bytes: float
    account: float
    account_bytes: float


def node_id(number: int) -> str:
    return f"nod_{number:024x}"


def members(count: int) -> tuple[list[FleetMember], list[NKey]]:
    keys = [NKey.new() for _ in range(count)]
    made = [a_member(node_id(n), f"exit{n}", "eu") for n in range(count)]
    return [replace(member, nkey=key.public) for member, key in zip(made, keys, strict=True)], keys


def a_used_beat(node: str, n: int) -> Beat:
    return a_beat(
        node, n=n, inst="0123456789abcdef", live=LIVE, room=60_000, mbps=400, line=1000, gen=3, acc_rev=123_456
    )


async def server_beats(hub: RealHub, connected: int) -> tuple[float, float]:
    """Returns what nats-server spends on one beat, and how many have heard it: a slow one may miss some."""
    own, keys = members(connected)
    await hub.apply(*own)
    assert hub.server.pid is not None
    heard = 0

    async def hear(_message: object) -> None:
        nonlocal heard
        heard += 1

    async with AsyncExitStack() as stack:
        links = []
        for member, key in zip(own, keys, strict=True):
            links.append(await stack.enter_async_context(hub.signed_on(key, member_inbox(member.id))))
            await links[-1].subscribe(beats.OF_ALL, hear)
        before = busy_s(hub.server.pid)
        rounds = BEATS * CONNECTED // connected
        for n in range(rounds):
            for member, link in zip(own, links, strict=True):
                await link.publish(beats.SUBJECT + member.id, beats.encoded(a_used_beat(member.id, n)))
                await link.client.flush()  # one message a write, as beats of many hosts are
        seen = -1
        while heard > seen:
            seen = heard
            await asyncio.sleep(1)
        sent = rounds * connected
        return (busy_s(hub.server.pid) - before) / sent, heard / sent


def heard_beat() -> tuple[float, int]:
    """Returns what an exit spends on one beat that it hears, and its size."""
    own, _ = members(101)
    directory = Directory(own[0], lambda: own)
    said = [(beats.SUBJECT + m.id, beats.encoded(a_used_beat(m.id, 1))) for m in own[1:]]
    began = time.process_time()
    for n in range(HEARD):
        directory.hear(beats.parse(*said[n % len(said)]), Moment(0, n, "boot"))
    return (time.process_time() - began) / HEARD, len(said[0][1])


async def claims(hub: RealHub) -> tuple[float, float, float]:
    """Returns what nats-server and the ledger spend on one claim of a key, and the bytes of its record."""
    assert hub.server.pid is not None
    async with hub.signed_on(hub.hub_key, "_INBOX_hub") as link:
        stream = JetStreamContext(link.client)
        clock = HostClock()
        records = KvRecords(lambda: stream, "keys", timedelta(milliseconds=KEY_LAPSES_MS))
        ledger = KeyClaimLedger(records, clock, NewClaims(clock))
        asked = [ClaimKey(f"{n:064x}", "acc_0123456789abcdef", f"{n:032x}") for n in range(CLAIMS + 1)]
        await ledger.claim(node_id(1), asked.pop())
        before, began = busy_s(hub.server.pid), time.process_time()
        for each in asked:
            await ledger.claim(node_id(1), each)
        server, own = busy_s(hub.server.pid) - before, time.process_time() - began
        kept = (await stream.stream_info("KV_keys")).state.bytes
        return server / CLAIMS, own / CLAIMS, kept / (CLAIMS + 1)


async def reports(folder: Path) -> tuple[float, float]:
    """Returns what the fold spends on one report where there are many already, and the bytes of its row."""
    node = node_id(1)
    streams = MadeUp([node], HISTORY + REPORTS, Random(1))  # noqa: S311 (figures of made-up sessions)
    async with opened(folder / "fold.sqlite") as store:
        async with store.write() as db:
            await fleet_reports.begin_reporting(db)
        fold = Fold(store, streams, lambda: [node], lambda: 2**40)
        await fold.catch_up(node, HISTORY // AT_ONCE)
        began = time.process_time() - streams.spent_s
        await fold.catch_up(node)
        spent = time.process_time() - streams.spent_s - began
    return spent / REPORTS, (folder / "fold.sqlite").stat().st_size / (HISTORY + REPORTS)


async def accounts(folder: Path) -> tuple[float, float]:
    """Returns what a hub spends on telling an exit one account with its token, and the bytes of both."""
    async with opened(folder / "hub.sqlite") as store:
        async with store.write() as db:
            await db.executemany(
                "INSERT INTO accounts (id, name, tier, created_at) VALUES (?, ?, 'free', 0)",
                [(f"acc_{n:016x}", f"customer-{n}") for n in range(COPIED)],
            )
            await db.executemany(
                "INSERT INTO tokens (id, hash, account_id, created_at) VALUES (?, ?, ?, 0)",
                [(f"tok_{n:016x}", os.urandom(32), f"acc_{n:016x}") for n in range(COPIED)],
            )
        ledger, after, size, began = SyncLedger(store, 1), ("", ""), 0, time.process_time()
        while True:
            answer = await ledger.answer("", msgspec.json.encode(SyncRequest(0, "", after)))
            size += len(answer)
            told = msgspec.json.decode(answer, type=SyncAnswer)
            if not told.more:
                return (time.process_time() - began) / COPIED, size / COPIED
            after = told.rows[-1][:2]


async def measured(folder: Path) -> Costs:
    heard, beat_bytes = heard_beat()
    async with real_hub(folder / "hub") as hub:
        (few, by_few), (many, by_many) = await server_beats(hub, CONNECTED // 3), await server_beats(hub, CONNECTED)
        delivery = (many - few) / (by_many - by_few)
        claim = await claims(hub)
    reported, told = await reports(folder), await accounts(folder)
    beat = max(0.0, few - delivery * by_few)  # what is small is lost in the clock's ticks
    return Costs(beat, delivery, beat_bytes, heard, *claim, *reported, *told)


def rows(costs: Costs) -> list[tuple[str, ...]]:
    """Returns what fleets of so many exits come to, each as busy as LIVE and OPENS say."""
    made = []
    for n in EXITS:
        renewals, opens = n * LIVE / (RENEW_MS / 1000), n * OPENS
        leases = n * LIVE * 1000 * (BUSY / REFRESH_MS + (1 - BUSY) / QUIET_MS)
        asked = opens * 4 + renewals + leases  # a lease costs what a claim does: a record is read, and put
        records = opens + n * LIVE / 60  # reports a second
        server = n * costs.server_beat + n * n * costs.server_delivery + asked * costs.server_claim
        own = n * costs.heard + asked * costs.claim + records * costs.report
        made.append(
            (
                f"{n}",
                f"{n * n * (costs.beat_bytes + 60) * 8 / 1e6:.1f}",
                f"{100 * n * costs.heard:.1f}",
                f"{asked:.0f}",
                f"{n * LIVE * costs.claim_bytes / 1e6:.0f}",
                f"{records:.0f}",
                f"{100 * server:.0f}",
                f"{100 * own:.0f}",
            )
        )
    return made


@click.command()
def main() -> None:
    """Measure what the parts cost, and print what fleets come to."""
    with tempfile.TemporaryDirectory() as folder:
        costs = asyncio.run(measured(Path(folder)))
    for name in Costs.__slots__:
        value = getattr(costs, name)
        click.echo(f"{name:>16}: " + (f"{value:.0f} bytes" if name.endswith("bytes") else f"{value * 1e6:.1f} us"))
    copy_s, copy_mb = ACCOUNTS * costs.account, ACCOUNTS * costs.account_bytes / 1e6
    click.echo(f"a copy of {ACCOUNTS} accounts: {copy_s:.0f} s, {copy_mb:.0f} MB")
    click.echo("exits | beats Mbit/s | hearing % | ledger/s | keys MB | reports/s | nats-server % | hub's appliance %")
    for row in rows(costs):
        click.echo(" | ".join(row))


if __name__ == "__main__":
    main()
