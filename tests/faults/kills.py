"""`python -m tests.faults.kills --kills 500`: the server's process killed at random instants, and started again.

Some of the instants are chosen: the process is stopped at random ones until it stands in the middle of what is
aimed at, as seen from outside, and killed there. What SIGSTOP has stopped SIGKILL kills where it stands.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import click

from tests.support.faults import aftermath
from tests.support.faults.clients import Client, Operator
from tests.support.faults.real_exit import SHORT_LIVED, real_exit
from tests.support.real_backend import NO_ROOT, backend_here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.faults.real_exit import RealExit

TIERS = ("paid", "paid", "free", SHORT_LIVED)  # of the clients
BURST_S = 0.3
AIMS = ("", "create", "delete", "tick")  # what to be in the middle of; the first is anything
METHODS = {"create": "POST", "delete": "DELETE"}  # of the requests that do it; nobody asks for a tick
AIM_S = 2.0  # then it is killed wherever it is
AIM_PAUSE_S = 0.01  # between two looks, at most
START_KILLED = 0.25  # how often the start after a kill is killed as well
TUNNEL_LOST = 0.3  # and how often it finds no interface


@dataclass
class Tally:
    kills: int = 0
    seconds_to_start: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)  # after kills

    def __str__(self) -> str:
        starts = sorted(self.seconds_to_start)
        return (
            f"{self.kills} kills; half done: {_listed(self.found)}; requests: {_listed(self.answers)}; "
            f"ready again after {starts[len(starts) // 2]:.2f} s (longest {starts[-1]:.2f} s)"
        )


class Killing:
    """One exit, its clients and its operator, from kill to kill."""

    def __init__(self, exit_: RealExit, random: Random) -> None:
        self.tally = Tally()
        self._exit = exit_
        self._random = random
        choices_of_each = [Random(random.random()) for _ in TIERS]  # noqa: S311 (a test's choices)
        self._clients = [
            Client(exit_, exit_.token(f"client{number}", tier), tier, choices)
            for number, (tier, choices) in enumerate(zip(TIERS, choices_of_each, strict=True))
        ]
        self._operator = Operator(exit_)

    def run(self, kills: int) -> None:
        """Raises Violated at the first kill that broke something."""
        self._start()
        while self.tally.kills < kills:
            self._burst()
            if self._random.random() < START_KILLED:
                self._killed_start()
            self._start()
            aftermath.check(self._exit, self._clients, self._operator)
        for client in self._clients:
            self.tally.answers += client.answers
        self._exit.stop()

    def _start(self) -> None:
        began = time.monotonic()
        self._exit.launch()
        self._exit.await_ready()
        self.tally.seconds_to_start.append(time.monotonic() - began)

    def _burst(self) -> None:
        """Everybody is busy, and the server dies."""
        enough = threading.Event()
        busy = [*self._clients, self._operator]
        with ThreadPoolExecutor(len(busy)) as threads:
            running = [threads.submit(one.run, enough) for one in busy]
            try:
                time.sleep(self._random.uniform(0, BURST_S))
                self._aim(self._random.choice(AIMS))
            finally:
                self._kill()
                enough.set()
            for one in running:
                one.result()
        with _copied(self._exit.store) as store:
            self.tally.found.update(self._half_done(store))

    def _aim(self, aim: str) -> None:
        """Stop the process, again and again, until it stands in the middle of what is aimed at."""
        deadline = time.monotonic() + (AIM_S if aim else 0)
        while time.monotonic() < deadline:
            time.sleep(self._random.uniform(0, AIM_PAUSE_S))
            if aim in METHODS and METHODS[aim] not in self._under_way():
                continue
            self._exit.stand_still()
            with _copied(self._exit.store) as store:
                if any(what.startswith(aim) for what in self._half_done(store)):
                    return
            self._exit.go_on()

    def _under_way(self) -> set[str]:
        asked = [client.under_way for client in self._clients]
        return {request.method for request in asked if request is not None}

    def _half_done(self, store: Path) -> set[str]:
        return aftermath.half_done(aftermath.unfinished(self._exit, store), self._exit.peers())

    def _killed_start(self) -> None:
        if self._random.random() < TUNNEL_LOST:
            self._exit.lose_tunnel()
            self.tally.found["a start without the interface"] += 1
        self._exit.launch()
        time.sleep(self._random.uniform(0, min(self.tally.seconds_to_start) * 1.2))
        self._kill()
        self.tally.found["a start cut short"] += 1

    def _kill(self) -> None:
        self._exit.kill()
        self.tally.kills += 1


@contextmanager
def _copied(store: Path) -> Iterator[Path]:
    """Copies the files as they are. Opening the store itself would recover it, which is the server's to do; and a
    stopped server may hold a lock of the WAL for which a reader waits until SQLite gives up ("locking protocol")."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (store.name, f"{store.name}-wal"):
            if (store.parent / name).exists():
                shutil.copyfile(store.parent / name, Path(folder) / name)
        yield Path(folder) / store.name


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{many} {what}" for what, many in sorted(counted.items())) or "nothing"


def run(kills: int, seed: int, backend: str) -> Tally:
    """Raises Violated, with the last of the server's log, when a kill broke something."""
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        with real_exit(folder, backend) as exit_:
            exit_.command("init")
            killing = Killing(exit_, Random(seed))  # noqa: S311 (a test's choices)
            try:
                killing.run(kills)
            except Exception as error:
                error.add_note(f"after {killing.tally.kills} kills, seed {seed}; {exit_.last_words()}")
                raise
            return killing.tally
    finally:
        shutil.rmtree(folder)


@click.command()
@click.option("--kills", "many", default=500, show_default=True)
@click.option("--seed", type=int, help="Of the choices and the delays; left out: a random one.")
def main(many: int, seed: int | None) -> None:
    """Kill the server and check what is left, again and again; exit status 1 when something is broken."""
    backend = backend_here()
    if backend is None:
        raise click.ClickException(NO_ROOT)
    seed = secrets.randbelow(2**31) if seed is None else seed
    began = time.monotonic()
    tally = run(many, seed, backend)
    click.echo(f"{backend} backend, seed {seed}: {tally}; {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
