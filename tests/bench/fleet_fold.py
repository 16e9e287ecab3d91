"""`python -m tests.bench.fleet_fold --sessions 5000000`: what a hub pays for the ended sessions of its exits.

Folds their reports by the hub's own fold, from streams that make them up as they are read, and prints what a record
costs from the first to the last, the memory and the disk, and what the hub's questions to the store then take. Exit
status 1 where one of them reads a whole table. A million takes 1 GB of disk, below `--folder`.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import TYPE_CHECKING

import click
import msgspec

from appliance.domain import ids
from appliance.fleet.link.stream_pages import Streamed
from appliance.fleet.reports.fold import AT_ONCE, PAGES, Fold
from appliance.fleet.reports.fold_answers import FoldAnswers
from appliance.fleet.reports.hub_folds import HubFolds
from appliance.fleet.reports.reports import (
    ReportedLine,
    ReportedRates,
    ReportedWindows,
    SessionReport,
    UsageAnswer,
    UsageRequest,
    created_in,
    subject_of,
)
from appliance.store.database import Store
from appliance.store.queries import fleet_fold, fleet_lines, fleet_reports
from tests.bench.processes import memory_mb, written_mb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence


BEGAN_MS = 1_767_225_600_000  # 2026-01-01
YEAR_MS = 365 * 86_400_000
EXITS, ACCOUNTS = 10, 100_000
STEPS = 20  # in which the costs are shown
RATES = ReportedRates("EUR", 1000, 50)
ASKED = 20  # times, of each question
BIG = ("fleet_sessions", "fleet_lines", "fleet_windows")
STORE_FILES = ("", "-wal")


class MadeUp:
    """The streams of the exits: the reports of `many` ended sessions of each, in the order in which they were opened.

    They ended one after another over a year. `spent_s`: the processor time that making them up has taken.
    """

    def __init__(self, nodes: Sequence[str], many: int, random: Random) -> None:
        self._marks = {node: ids.mark_of_node(node) for node in nodes}
        self._many = many
        self._random = random
        self.asked = dict.fromkeys(nodes, 0)
        self.some = list[tuple[str, str, SessionReport]]()  # node, session, report: one of each page
        self.spent_s = 0.0

    async def last_sequence(self, node: str) -> int:
        del node
        return self._many

    async def read(self, node: str, after: int, most: int) -> list[Streamed]:
        began = time.process_time()
        page = [self._message(node, n) for n in range(after + 1, min(after + most, self._many) + 1)]
        self.spent_s += time.process_time() - began
        return page

    def _message(self, node: str, number: int) -> Streamed:
        random = self._random
        opened, ms = BEGAN_MS + number * YEAR_MS // self._many, random.randrange(60_000, 86_400_000)
        into, out = random.randrange(10**8), random.randrange(10**9)
        account = f"acc_{random.randrange(ACCOUNTS):024x}"
        line = ReportedLine(
            created_in(opened),
            opened,
            opened + ms,
            ms // 1000,
            into,
            out,
            ReportedRates("EUR", 1000, 50),
            ms,
            out >> 20,
        )
        report = SessionReport(
            v=3,
            epoch=f"{random.getrandbits(64):016x}",
            turn=0,
            batch=number // 100 + 1,
            mark="0123abcd",
            created_at=opened,
            bytes_in=into,
            bytes_out=out,
            ms=ms,
            account_id=account,
            tier="paid",
            region="fsn",
            public_ip="203.0.113.17",
            reason="closed",
            expires_at=opened + 86_400_000,
            ended_at=opened + ms,
            until_ms=opened + ms,
            until_boot="01234567-89ab-cdef-0123-456789abcdef",
            lines=(line,),
            windows=ReportedWindows(opened, into + out, opened, ms),
        )
        session = f"ses_{random.getrandbits(64):016x}{self._marks[node]}"
        if number % AT_ONCE == 0:
            self.some.append((node, session, report))
        return Streamed(number, subject_of(node, session, report.of_epoch), msgspec.json.encode(report), opened)

    # What folding does not ask ------------------------------------------------------------------------

    async def make(self, node: str) -> None:
        raise NotImplementedError

    async def fullness(self, node: str) -> float:
        raise NotImplementedError

    async def drop(self, node: str, sequences: Iterable[int]) -> None:
        raise NotImplementedError

    async def nodes(self) -> list[str]:
        raise NotImplementedError

    async def remove(self, node: str) -> None:
        raise NotImplementedError


@dataclass
class Asked:
    """A request of an exit, and its answer."""

    subject: str
    data: bytes
    reply: str = "_INBOX"
    arrived_ms: int = 0
    answers: list[bytes] = field(default_factory=list)

    async def answer(self, data: bytes) -> None:
        self.answers.append(data)


def size_mb(store: Path) -> float:
    files = [store.with_name(store.name + end) for end in STORE_FILES]
    return sum(each.stat().st_size for each in files if each.exists()) / 1e6


async def fold_all(fold: Fold, streams: MadeUp, nodes: Sequence[str], sessions: int, store: Path) -> None:
    """In turns, as the hub does. Prints the costs of each step."""
    click.echo("   sessions | us a record: processor, in all | MB: store, resident, written since the step before")
    folded, shown, step = 0, 0, max(1, sessions // STEPS)
    busy, began, written, made = time.process_time(), time.perf_counter(), written_mb(), streams.spent_s
    left = list(nodes)
    while left:
        left = [node for node in left if not await fold.catch_up(node, PAGES)]
        folded = min(sessions, folded + len(nodes) * PAGES * AT_ONCE)
        if folded - shown < step and left:
            continue
        many, shown = folded - shown, folded
        making = streams.spent_s - made
        processor, whole = time.process_time() - busy - making, time.perf_counter() - began - making
        click.echo(
            f"{folded:>11,} | {processor / many * 1e6:6.1f} {whole / many * 1e6:6.1f} | {size_mb(store):8.0f} "
            f"{memory_mb('VmRSS'):6.1f} {written_mb() - written:8.0f}"
        )
        busy, began, written, made = time.process_time(), time.perf_counter(), written_mb(), streams.spent_s


# Questions ------------------------------------------------------------------------------------------------


class Questions:
    """What the hub asks its store while it runs, of sessions that are there. `scans`: statements that read a table."""

    def __init__(self, store: Store, fold: Fold, streams: MadeUp, random: Random) -> None:
        self._store = store
        self._answers = FoldAnswers(store, fold, lambda _node: True)
        self._folds = HubFolds(store, lambda _node: True)
        self._some = streams.some
        self._nodes = list(streams.asked)
        self._random = random
        self._shown = set[str]()
        self.scans = list[str]()

    def all(self) -> dict[str, Callable[[], Awaitable[object]]]:
        return {
            "digest of an exit": self._digest,
            "usage of an account": lambda: self._folds.windows(self._one()[2].account_id),
            "invoice lines of an account": self._lines,
            "reported_until": self._until,
            "a session": lambda: self._folds.session(self._one()[1]),
            "list of an account": self._list,
            "list of its live ones": lambda: self._list(live=True),
            "a month again, first page": self._month,
            "a month again, from its middle": lambda: self._month(self._one()),
            "since a batch, the last thousand": self._since,
            "since the first batch, from its middle": lambda: self._since_first(self._one()),
        }

    def _one(self) -> tuple[str, str, SessionReport]:
        return self._random.choice(self._some)

    async def _digest(self) -> None:
        asked = Asked(f"wga.led.{self._one()[0]}.digest", b"{}")
        await self._answers.digest(asked)
        assert asked.answers

    async def _lines(self) -> None:
        report = self._one()[2]
        async with self._store.read() as db:
            assert await fleet_lines.of_account(db, report.account_id, report.lines[0].month)

    async def _until(self) -> None:
        async with self._store.read() as db:
            assert len(await fleet_fold.reported_until(db)) == len(self._nodes)

    async def _list(self, *, live: bool = False) -> None:
        account = self._one()[2].account_id
        found = await self._folds.page(account, self._nodes, live=live, before=None, limit=50)
        assert bool(found) is not live

    async def _month(self, after: tuple[str, str, SessionReport] | None = None) -> None:
        node, session, report = after or self._one()
        await self._usage(node, UsageRequest(month=report.month, after=session if after else ""))

    async def _since(self) -> None:
        node = self._one()[0]
        async with self._store.read() as db:
            last = await fleet_fold.last_batch(db, node)
        assert last is not None
        await self._usage(node, UsageRequest(batch=max(0, last[0] - 10)))

    async def _since_first(self, after: tuple[str, str, SessionReport]) -> None:
        await self._usage(after[0], UsageRequest(after=after[1]))

    async def _usage(self, node: str, wanted: UsageRequest) -> None:
        asked = Asked(f"wga.led.{node}.usage", msgspec.json.encode(wanted))
        await self._answers.usage(asked)
        answer = msgspec.json.decode(asked.answers[0], type=UsageAnswer)
        assert answer.sessions or wanted.after

    # Times and plans ----------------------------------------------------------------------------------

    async def ask_all(self) -> None:
        for name, ask in self.all().items():
            took = []
            for _ in range(ASKED):
                began = time.perf_counter()
                await ask()
                took.append(time.perf_counter() - began)
            click.echo(f"{name}: {median(took) * 1e3:.2f} ms, at most {max(took) * 1e3:.2f} ms")
            self._shown = set[str]()
            for statement in await self._statements(ask):
                await self._explain(name, statement)

    async def _statements(self, ask: Callable[[], Awaitable[object]]) -> list[str]:
        """Returns what SQLite is asked, with the values."""
        said = list[str]()
        async with self._store.read() as db:
            await db.set_trace_callback(said.append)
        await ask()
        async with self._store.read() as db:
            await db.set_trace_callback(None)  # type: ignore[arg-type]  # sqlite3 takes it to end the trace
        return list(dict.fromkeys(said))

    async def _explain(self, name: str, statement: str) -> None:
        async with self._store.read() as db:
            plan = [row["detail"] for row in await db.execute_fetchall(f"EXPLAIN QUERY PLAN {statement}")]
        for line in dict.fromkeys(plan):
            if line not in self._shown:
                click.echo(f"    {line}")
            self._shown.add(line)
            if re.match(f"SCAN ({'|'.join(BIG)})", line) or ("TEMP B-TREE" in line and "month" in name):
                self.scans.append(f"{name}: {line}")


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    store = await Store.open(path)
    try:
        yield store
    finally:
        await store.close()


async def measure(path: Path, sessions: int, random: Random) -> list[str]:
    """Returns the statements that read a whole table."""
    nodes = [f"nod_{n:024x}" for n in range(EXITS)]
    async with opened(path) as store:
        async with store.write() as db:
            await fleet_reports.begin_reporting(db)
        streams = MadeUp(nodes, sessions // EXITS, random)
        fold = Fold(store, streams, lambda: nodes, lambda: shutil.disk_usage(path.parent).free)
        before, began, busy = memory_mb("VmRSS"), time.perf_counter(), time.process_time()
        await fold_all(fold, streams, nodes, sessions, path)
        click.echo(
            f"{sessions:,} sessions of {EXITS} exits, {ACCOUNTS:,} accounts: "
            f"{time.perf_counter() - began - streams.spent_s:.0f} s, processor "
            f"{time.process_time() - busy - streams.spent_s:.0f} s; {size_mb(path) * 1e6 / sessions:.0f} bytes each"
        )
        rss = f"{before:.1f} MB before, {memory_mb('VmRSS'):.1f} after, at most {memory_mb('VmHWM'):.1f}"
        click.echo(f"resident memory: {rss}; store {size_mb(path):.0f} MB")
        questions = Questions(store, fold, streams, random)
        await questions.ask_all()
        return questions.scans


@click.command()
@click.option("--sessions", default=100_000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the store is made, and removed at the end.")
@click.option("--seed", default=1, show_default=True)
def main(sessions: int, folder: Path | None, seed: int) -> None:
    """Fold so many ended sessions, and ask."""
    with tempfile.TemporaryDirectory(prefix="fold-", dir=folder) as made:
        random = Random(seed)  # noqa: S311 (figures of made-up sessions)
        scans = asyncio.run(measure(Path(made) / "store.sqlite", sessions, random))
    if scans:
        raise click.ClickException("these read more than they answer: " + "; ".join(scans))


if __name__ == "__main__":
    main()
