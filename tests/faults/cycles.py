"""`python -m tests.faults.cycles --cycles 10000`: sessions opened and closed, and what the server holds meanwhile."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from tests.support.faults.real_exit import REGION
from tests.support.faults.serving import serving
from tests.support.faults.violations import require
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.support.faults.real_exit import RealExit, UnixConnection

AT_ONCE = 4
READINGS = 10

# How much more the server may hold at the end than when two thirds were done. A session that is kept in memory for
# good takes a kilobyte, so that ten thousand cycles would show it.
MORE_MEMORY = 2 * 2**20
MORE_FILES = 4
MORE_STORE = 2**20
A_ROW = 1024  # bytes in the store of a row that it has to keep
LARGEST_WAL = 8 * 2**20  # SQLite starts it again at 4 MB

# An invoice's lines stay when retention has removed their sessions.
KEPT = "SELECT (SELECT count(*) FROM sessions) + (SELECT count(*) FROM invoice_lines)"
ENDED = "SELECT count(*) FROM sessions WHERE state = 'terminated'"


@dataclass(frozen=True)
class Holding:
    """What the server holds after so many cycles; sizes in bytes."""

    cycles: int
    per_second: float
    memory: int
    files: int
    store: int
    wal: int
    rows: int

    def __str__(self) -> str:
        return (
            f"{self.cycles} cycles, {self.per_second:.0f}/s: {self.memory / 2**20:.1f} MiB resident, "
            f"{self.files} files open, store {self.store // 1024} KiB with {self.rows} rows kept, "
            f"log {self.wal // 1024} KiB"
        )


def run(
    cycles: int, backend: str, *, tier: str, retention: str, report: Callable[[Holding], None]
) -> Sequence[Holding]:
    """Raises Violated when something does not level off."""
    with serving(backend, METER_RETENTION=retention) as exit_:
        held = _cycle(exit_, cycles, exit_.token("anna", tier), report)
        require(exit_.peers() == {}, "who was closed has no peer", exit_.peers())
        _require_level(held)
        if retention == SHORT:
            until(lambda: exit_.rows(ENDED) == [(0,)], "retention removes what has ended")
    return held


SHORT = "2s"  # reached all the time


def _cycle(exit_: RealExit, cycles: int, token: str, report: Callable[[Holding], None]) -> list[Holding]:
    held = []
    with ExitStack() as stack:
        connections = [stack.enter_context(exit_.connection()) for _ in range(AT_ONCE)]
        threads = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        each = -(-cycles // (READINGS * AT_ONCE))
        for reading in range(1, READINGS + 1):
            began = time.monotonic()
            for done in [threads.submit(_open_and_close, each, connection, token) for connection in connections]:
                done.result()
            took = time.monotonic() - began
            held.append(_holding(exit_, reading * each * AT_ONCE, each * AT_ONCE / took))
            report(held[-1])
    return held


def _open_and_close(many: int, connection: UnixConnection, token: str) -> None:
    for _ in range(many):
        status, session = connection.ask("POST", "/v1/sessions", token, {"region": REGION})
        require(status == 201, "a session is opened", status, session)
        status, final = connection.ask("DELETE", f"/v1/sessions/{session['id']}", token)
        require(status == 200, "a session is closed", status, final)


def _holding(exit_: RealExit, cycles: int, per_second: float) -> Holding:
    ((rows,),) = exit_.rows(KEPT)
    return Holding(
        cycles,
        per_second,
        memory=int(exit_.metric("process_resident_memory_bytes")),
        files=int(exit_.metric("process_open_fds")),
        store=exit_.store.stat().st_size,
        wal=exit_.store.with_name(f"{exit_.store.name}-wal").stat().st_size,
        rows=rows,
    )


def _require_level(held: Sequence[Holding]) -> None:
    last = held[-1]
    before = next(h for h in held if h.cycles * 3 >= last.cycles * 2)
    require(last.memory - before.memory <= MORE_MEMORY, "memory levels off", *held)
    require(last.files - before.files <= MORE_FILES, "open files level off", *held)
    room = MORE_STORE + max(0, last.rows - before.rows) * A_ROW
    require(last.store - before.store <= room, "the store grows by what it has to keep", *held)
    require(max(h.wal for h in held) <= LARGEST_WAL, "the store's log is started again", *held)


@click.command()
@click.option("--cycles", default=10_000, show_default=True)
@click.option("--tier", default="free", show_default=True)
@click.option("--retention", default=SHORT, show_default=True)
def main(cycles: int, tier: str, retention: str) -> None:
    """Open and close sessions; exit status 1 when what the server holds does not level off."""
    backend = backend_here()
    if backend is None:
        raise click.ClickException(NO_ROOT)
    began = time.monotonic()
    held = run(cycles, backend, tier=tier, retention=retention, report=lambda holding: click.echo(str(holding)))
    took = time.monotonic() - began
    click.echo(f"{held[-1].cycles} cycles leveled off; {backend} backend, {tier}, retention {retention}, {took:.0f} s")


if __name__ == "__main__":
    main()
