"""`python -m tests.bench.retention`: what others wait for while half of a million ended sessions are deleted."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from tests.support.faults.real_exit import REGION, real_exit
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.support.faults.real_exit import RealExit, UnixConnection

DAY_MS = 86_400_000
RETENTION_S = 60  # and how often it is looked after
LATEST_MS = 1000  # between the first and the last end of the sessions that are due
PROBE_S = 0.002
GIVING_BACK_S = 60

_ACCOUNTS = "INSERT INTO accounts (id, name, tier, created_at) VALUES (?, ?, 'free', 0)"
# In the order in which they were opened; ids and keys are random. The first half is due, the other is not.
_SESSIONS = """
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :sessions)
INSERT INTO sessions (id, account_id, tier, region, public_ip, public_key, address_offset, ipv6, state, created_at,
    expires_at, quiet_since_ms, quiet_boot_id, reason, terminated_at)
SELECT 'ses_' || lower(hex(randomblob(12))), 'acc_' || (i % 1000), 'free', 'test', '192.0.2.1', randomblob(32), 2, 1,
    'terminated', :due - 1000, :due, 0, 'boot', 'closed', :due + (i >= :sessions / 2) * :day + i % 1000
FROM n
"""
DUE = "SELECT EXISTS (SELECT 1 FROM sessions WHERE terminated_at < {before})"


@dataclass
class Latencies:
    """Of one kind of work, in seconds, and how often it was refused for now (503)."""

    found: list[float] = field(default_factory=list)
    refused: int = 0

    def add(self, seconds: float) -> None:
        self.found.append(seconds)

    def __str__(self) -> str:
        if len(self.found) < 2:
            return f"seen {len(self.found)} times"
        cuts = quantiles(self.found, n=100)
        p50, p99, longest = (1e3 * seconds for seconds in (cuts[49], cuts[98], max(self.found)))
        took = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.1f} ms"
        return f"{len(self.found)} times, {took}, {self.refused} refused"


def fill(store: Path, sessions: int, due_ms: int) -> None:
    with closing(sqlite3.connect(store)) as db, db:
        db.executemany(_ACCOUNTS, [(f"acc_{number}", f"acc_{number}") for number in range(1000)])
        db.execute(_SESSIONS, {"sessions": sessions, "due": due_ms, "day": DAY_MS})


def under_load(exit_: RealExit, token: str, until_over: Callable[[], None]) -> Mapping[str, Latencies]:
    """What one client that comes and goes, one that asks, and another process that writes wait for."""
    found = {name: Latencies() for name in ("POST", "GET", "others kept from writing")}
    over = threading.Event()
    with ExitStack() as stack:
        coming, asking = (stack.enter_context(exit_.connection()) for _ in range(2))

        def ask(connection: UnixConnection, method: str, path: str, body: object = None) -> Any:
            began = time.perf_counter()
            status, answer = connection.ask(method, path, token, body)
            assert status in (200, 201, 503), (status, answer)
            if method in found:
                found[method].add(time.perf_counter() - began)
                found[method].refused += status == 503
            return answer

        def come_and_go() -> None:
            opened = ask(coming, "POST", "/v1/sessions", {"region": REGION})
            if "id" in opened:
                ask(coming, "DELETE", f"/v1/sessions/{opened['id']}")

        def get() -> None:
            ask(asking, "GET", f"/v1/sessions/{kept}")

        kept = ask(asking, "POST", "/v1/sessions", {"region": REGION})["id"]
        probe = stack.enter_context(closing(sqlite3.connect(exit_.store, timeout=0, check_same_thread=False)))
        threads = stack.enter_context(ThreadPoolExecutor(3))
        works = (come_and_go, get, LockProbe(probe, found["others kept from writing"]).look)
        running = [threads.submit(_again, work, over) for work in works]
        try:
            until_over()
        finally:
            over.set()
        for each in running:
            each.result()
    return found


def _again(work: Callable[[], None], over: threading.Event) -> None:
    while not over.wait(PROBE_S):
        work()


class LockProbe:
    """Looks every other moment whether the store's write lock is held, and for how long in a row."""

    def __init__(self, db: sqlite3.Connection, found: Latencies) -> None:
        self._db = db
        self._found = found
        self._held_since: float | None = None

    def look(self) -> None:
        now = time.perf_counter()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.rollback()
        except sqlite3.OperationalError:
            self._held_since = self._held_since or now
            return
        if self._held_since is not None:
            self._found.add(now - self._held_since)
        self._held_since = None


def ticks(exit_: RealExit) -> dict[str, float]:
    """How many ticks took how long at most, by the bounds of the histogram."""
    found: dict[str, float] = {}
    buckets = re.findall(
        r'^wg_appliance_tick_duration_seconds_bucket{.*le="([^"]+)".*} (\S+)$', exit_.exposition(), re.M
    )
    for bound, count in buckets:
        found[bound] = found.get(bound, 0) + float(count)
    return found


def _slowest(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """The bound under which all ticks in between are."""
    many = {bound: after[bound] - before.get(bound, 0) for bound in after}
    return next(bound for bound, count in many.items() if count == many["+Inf"])


def _report(what: str, exit_: RealExit, token: str, until_over: Callable[[], None]) -> None:
    before, began = ticks(exit_), time.monotonic()
    found = under_load(exit_, token, until_over)
    click.echo(f"{what}, {time.monotonic() - began:.1f} s:")
    for name, latencies in found.items():
        click.echo(f"  {name}: {latencies}")
    click.echo(f"  all ticks within {_slowest(before, ticks(exit_))} s; {_sizes(exit_.store)}")


def _sizes(store: Path) -> str:
    wal = store.with_name(f"{store.name}-wal")
    return f"store {store.stat().st_size / 2**20:.0f} MiB, its WAL {wal.stat().st_size / 2**20:.1f} MiB"


@click.command()
@click.option("--sessions", default=1_000_000, show_default=True)
@click.option("--fill-s", default=120, show_default=True, help="Time enough to fill it.")
def main(sessions: int, fill_s: int) -> None:
    """Delete half of the sessions while clients come and go; APPLIANCE_UNDER_TEST names another version's program."""
    backend = backend_here()
    if backend is None:
        raise click.ClickException(NO_ROOT)
    with TemporaryDirectory(prefix="bench-") as folder, real_exit(Path(folder), backend) as exit_:
        exit_.environment["WG_APPLIANCE_METER_RETENTION"] = f"{RETENTION_S}s"
        exit_.command("init")
        token = exit_.token("anna", "free")
        # At the server's first sweep, when it starts, nothing is due yet, at the second one half of all.
        start_s = time.time() + fill_s
        ended_ms = int((start_s - RETENTION_S / 2) * 1000)
        fill(exit_.store, sessions, ended_ms)
        click.echo(
            f"filled with {sessions}, {start_s - time.time():.0f} s left; {exit_.store.stat().st_size >> 20} MiB"
        )
        time.sleep(start_s - time.time())
        exit_.launch()
        exit_.await_ready()
        click.echo(f"ready after {time.time() - start_s:.1f} s; {_sizes(exit_.store)}")
        _report("before", exit_, token, lambda: time.sleep(start_s + RETENTION_S - 5 - time.time()))
        gone = DUE.format(before=ended_ms + LATEST_MS)

        def until_gone() -> None:
            until(lambda: exit_.rows(gone) == [(0,)], "all is gone", 600)
            time.sleep(1)  # for a tick to end that may have done it

        _report("deleting", exit_, token, until_gone)
        time.sleep(GIVING_BACK_S)
        click.echo(f"{GIVING_BACK_S} s later: {_sizes(exit_.store)}")
        exit_.stop()


if __name__ == "__main__":
    main()
