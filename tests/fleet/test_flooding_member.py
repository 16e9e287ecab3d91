"""A member that sends all it can, in the name of none but itself, on a real hub: what the others see of it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import secrets
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from appliance.domain.clock import HostClock
from appliance.domain.errors import FleetError
from appliance.fleet.claims.kv import KvRecords
from appliance.fleet.claims.ledger import ClaimLedger
from appliance.fleet.hub.control import HubControl
from appliance.fleet.hub.files import HubFiles, hub_place
from appliance.fleet.hub.watch import MOST_PER_S, HubWatch
from appliance.fleet.hub_part import DEVICE_NAMES, KEYS
from appliance.fleet.link.link import NatsLink
from appliance.fleet.reports.fold import Fold
from appliance.fleet.reports.fold_answers import FoldAnswers
from appliance.fleet.reports.reports import SessionReport, subject_of
from appliance.fleet.reports.streams import NatsStreams
from appliance.store.database import Store
from appliance.store.queries import fleet_fold
from tests.support.fleet.claims_kept import owner
from tests.support.fleet.hub_process import SECONDS, HubProcess
from tests.support.fleet.link_contract import AMS, FRA

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.fleet.link.link import LinkState
    from appliance.fleet.link.nats_client import LinkUser

FLOODS_S = 15
REPORT = SessionReport(3, "ab", 0, 7, "cd", 1_790_000_000_000, 2, 3, 1000, "live", "acc_1", "paid", "fsn")


def flood(hub: HubProcess, user: LinkUser, per_second: int) -> None:
    """Sends new sessions, beats and questions at this rate, if the connection takes them so fast."""

    async def send() -> None:
        link = NatsLink(lambda: (hub.at(),), user, HostClock())
        link.start()
        report = msgspec.json.encode(msgspec.structs.replace(REPORT, reason="x" * 500))
        due = time.monotonic()
        while True:
            due = max(due + 40 / per_second, time.monotonic() - 1)
            with suppress(FleetError):
                for _ in range(10):
                    await link.publish(subject_of(AMS, f"ses_{secrets.token_hex(8)}", REPORT.of_epoch), report)
                    await link.publish(f"wga.hb.{AMS}", b"{}")
                    for operation in ("digest", "claim"):
                        await link.jetstream()._nc.publish(f"wga.led.{AMS}.{operation}", b"{}", reply=f"_INBOX_{AMS}.x")
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    asyncio.run(send())


def rss_mb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def size_mb(folder: Path, files: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob(files)) >> 20


class HonestMember:
    """Reports a session and claims a key, one after the other."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link
        self._claims = owner(link, FRA)
        self.reported: list[str] = []
        self.took_ms: dict[str, list[float]] = {"report": [], "claim": []}
        self.failed = 0

    async def act(self) -> None:
        session = f"ses_{secrets.token_hex(8)}"
        subject, key = subject_of(FRA, session, REPORT.of_epoch), secrets.token_bytes(32)
        try:
            began = time.monotonic()
            await self._link.keep(subject, msgspec.json.encode(REPORT), 5)
            self.took_ms["report"].append((time.monotonic() - began) * 1000)
            self.reported.append(session)
            began = time.monotonic()
            await self._claims.claim_key(key, "acc_1", secrets.token_hex(16), device=False)
            self.took_ms["claim"].append((time.monotonic() - began) * 1000)
        except FleetError:
            self.failed += 1

    def figures(self) -> str:
        told = [
            f"{what} {statistics.median(took or [0]):.1f} ms, at most {max(took, default=0):.0f}"
            for what, took in self.took_ms.items()
        ]
        self.took_ms = {"report": [], "claim": []}
        return f"{', '.join(told)}; {self.failed} failed"


class FloodedHub:
    """The hub's part, as far as members' messages get: streams, fold, ledger, and the watch."""

    def __init__(self, process: HubProcess, store: Store) -> None:
        self.process, self.store = process, store
        self.link, self.system = (self._link(user) for user in (process.hub_user(), process.system_user()))
        self.streams = NatsStreams(self.link.jetstream)
        self.fold = Fold(store, self.streams, lambda: [AMS, FRA])
        records = (KvRecords(self.link.jetstream, each) for each in (KEYS, DEVICE_NAMES))
        self.claims = ClaimLedger(*records, HostClock(), _nowhere)
        control = HubControl(HubFiles(hub_place(process.folder)), lambda: process.folder, self.system)
        self.watch = HubWatch(control, "hub", self._put_out, HostClock())
        self.put_out_at: float | None = None

    def _link(self, user: LinkUser) -> NatsLink:
        return NatsLink(lambda: (self.process.at(),), user, HostClock(), self._changed)

    def _changed(self, state: LinkState) -> None:
        if state.connected and hasattr(self, "fold"):
            self.fold.reconnected()

    def _put_out(self, nkey: str, _why: str) -> None:
        if self.process.keys.get(AMS) is not None and self.process.keys[AMS].public == nkey:
            self.put_out_at = time.monotonic()
            del self.process.keys[AMS]
            self.process.reload()

    async def begin(self) -> None:
        for link in (self.link, self.system):
            link.start()
            await link.wait_connected(SECONDS)
        for desk in (self.fold, FoldAnswers(self.store, self.fold, {AMS, FRA}.__contains__), self.claims):
            await desk.listen(self.link)
        for node in (AMS, FRA):
            await self.streams.make(node)

    def rss_mb(self) -> str:
        assert self.process.process is not None
        return f"{rss_mb(self.process.process.pid)} MB, hub {rss_mb(os.getpid())} MB"


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("per_second", [2500, 1_000_000])
def test_a_member_that_floods_harms_itself_alone(tmp_path: Path, show: Callable[[str], None], per_second: int) -> None:
    """One that sends as much as the hub lets it: what another reports is kept, folded and answered all the while. One
    that sends more is put out. Its stream stays within its bound in any case."""

    async def story(hub: FloodedHub, flooding: multiprocessing.process.BaseProcess) -> None:
        await hub.begin()
        other = NatsLink(lambda: (hub.process.at(),), hub.process.user(FRA), HostClock())
        other.start()
        await other.wait_connected(SECONDS)
        stopping = asyncio.Event()
        tasks = [asyncio.create_task(hub.fold.run()), asyncio.create_task(hub.watch.run(stopping))]
        honest = HonestMember(other)
        await acting(honest, 3)
        show(f"alone: {honest.figures()}; RSS nats-server {hub.rss_mb()}")
        flooding.start()
        began = time.monotonic()
        await acting(honest, FLOODS_S)
        show(f"beside {per_second} messages a second: {honest.figures()}; RSS nats-server {hub.rss_mb()}")
        if hub.put_out_at is not None:
            show(f"put out after {hub.put_out_at - began:.1f} s")
            await acting(honest, 3)
            show(f"after that: {honest.figures()}")
        assert (hub.put_out_at is not None) == (per_second > MOST_PER_S)
        flooding.kill()
        async with asyncio.timeout(2 * SECONDS):
            while set(honest.reported) - await folded(hub.store):  # noqa: ASYNC110 (the fold does it)
                await asyncio.sleep(0.1)
        show(f"{await hub.streams.last_sequence(AMS)} reports of it were kept")
        show(f"disk: streams {size_mb(tmp_path, '*.blk')} MB, store {size_mb(tmp_path, '*.sqlite*')} MB")
        assert await hub.streams.fullness(AMS) <= 1.0
        assert honest.reported
        stopping.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in (hub.link, hub.system, other):
            await link.close()

    async def opened(process: HubProcess, flooding: multiprocessing.process.BaseProcess) -> None:
        store = await Store.open(tmp_path / "hub.sqlite")
        try:
            await story(FloodedHub(process, store), flooding)
        finally:
            await store.close()

    with HubProcess(tmp_path / "hub", AMS, FRA) as process:
        given = process, process.user(AMS), per_second
        flooding = multiprocessing.get_context("fork").Process(target=flood, args=given, daemon=True)
        try:
            asyncio.run(opened(process, flooding))
        finally:
            if flooding.pid is not None:
                flooding.kill()
                flooding.join()


async def acting(member: HonestMember, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await member.act()
        await asyncio.sleep(0.1)


async def folded(store: Store) -> set[str]:
    async with store.read() as db:
        return {each.session_id for each in await fleet_fold.said_after_batch(db, FRA, 0, "", 10_000)}


async def _nowhere(_id: str) -> None:
    return None
