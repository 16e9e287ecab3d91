"""Rows about requests that open and end sessions: how many a second, by how many clients at once, on a slower disk."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

from tests.bench.contest import Row, Target
from tests.support.faults.real_exit import PROJECT, REGION, real_exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from tests.support.faults.real_exit import RealExit

SLOWER_US = 2000  # each sync of a file, as on a small VPS
LIVE = 250
SECONDS = 2.0  # of a round of one contender
CLIENTS = (1, 16, 64)
SOURCE = PROJECT / "tests" / "bench" / "slow_sync.c"
IN_BATCHES, ONE_BY_ONE = "", ", one by one"


@dataclass
class Client:
    """One kept connection, over which it asks one thing after another."""

    path: Path
    token: str
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, init=False)

    async def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(str(self.path))
        reader, writer = self._streams
        head = f"{method} {target} HTTP/1.1\r\nHost: exit.test\r\nAuthorization: Bearer {self.token}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return int(answer.split()[1]), await reader.readexactly(length)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


@dataclass(frozen=True)
class Exit:
    """A running exit, and the token that its clients have."""

    exit: RealExit
    token: str


@dataclass
class Asked:
    """What one round has come to: how long each answer took, and the sessions that are still live."""

    took: list[float] = field(default_factory=list)
    live: list[str] = field(default_factory=list)


async def _open(client: Client) -> str:
    status, answer = await client.ask("POST", "/v1/sessions", json.dumps({"region": REGION}).encode())
    assert status == 201, answer
    session_id: str = json.loads(answer)["id"]
    return session_id


async def _close(client: Client, session_id: str) -> None:
    status, answer = await client.ask("DELETE", f"/v1/sessions/{session_id}")
    assert status == 200, answer


async def opens(client: Client, until: float, asked: Asked) -> None:
    while (began := time.perf_counter()) < until:
        asked.live.append(await _open(client))
        asked.took.append(time.perf_counter() - began)


async def cycles(client: Client, until: float, asked: Asked) -> None:
    while (began := time.perf_counter()) < until:
        await _close(client, await _open(client))
        asked.took.append(time.perf_counter() - began)


async def _together(exit_: RealExit, token: str, clients: int, ask: Callable[..., Awaitable[None]]) -> list[float]:
    """How long each took, of those that several clients asked in a round. Afterwards as many are live as before."""
    asked = Asked()
    asking = [Client(exit_.api, token) for _ in range(clients)]
    until = time.perf_counter() + SECONDS
    await asyncio.gather(*(ask(client, until, asked) for client in asking))

    async def close_some(client: Client) -> None:
        while asked.live:
            await _close(client, asked.live.pop())
        client.close()

    await asyncio.gather(*map(close_some, asking))
    return asked.took


@contextmanager
def _slow_disk() -> Iterator[str]:
    """The library that makes it so, built."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        library = Path(folder) / "slow_sync.so"
        subprocess.run(["gcc", "-std=c11", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True)
        yield str(library)


@contextmanager
def _an_exit(backend: str, library: str, *, batches: bool = True) -> Iterator[Exit]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, real_exit(Path(folder), backend) as exit_:
        exit_.environment["WG_APPLIANCE_WIREGUARD_SUBNET"] = "10.101.0.0/16"
        exit_.command("init")
        token = exit_.token("ada", "paid")
        if not batches:
            exit_.program = lambda: [sys.executable, "-m", "tests.bench.one_by_one"]
        exit_.environment |= {"LD_PRELOAD": library, "SLOW_SYNC_US": str(SLOWER_US)}
        exit_.launch()
        exit_.await_ready()
        with exit_.connection() as connection:
            for _ in range(LIVE):
                assert connection.ask("POST", "/v1/sessions", token, {"region": REGION})[0] == 201
        yield Exit(exit_, token)
        exit_.stop()


def rows(backend: str, rounds: int) -> Iterator[Row]:
    """Of one client and of several, in turns, beside an exit that serves one request after another."""
    for work, ask in (("POST /v1/sessions", opens), ("POST and DELETE /v1/sessions", cycles)):
        with ExitStack() as held:
            library = held.enter_context(_slow_disk())
            exits = {IN_BATCHES: held.enter_context(_an_exit(backend, library))}
            if ask is opens:
                exits[ONE_BY_ONE] = held.enter_context(_an_exit(backend, library, batches=False))
            yield _row(exits, rounds, work, ask)


def cycles_row(backend: str, rounds: int) -> Row:
    """Of sessions that are opened and ended, on this backend."""
    with _slow_disk() as library, _an_exit(backend, library) as exit_:
        return _row({IN_BATCHES: exit_}, rounds, "POST and DELETE /v1/sessions", cycles)


def _row(exits: Mapping[str, Exit], rounds: int, work: str, ask: Callable[..., Awaitable[None]]) -> Row:
    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        for clients in CLIENTS:
            for how, exit_ in exits.items():
                took = asyncio.run(_together(exit_.exit, exit_.token, clients, ask))
                name = f"{clients} client{'s' if clients > 1 else ''}"
                figures.setdefault(f"{name}{how}", []).append(SECONDS / len(took))
                figures.setdefault(f"{name}, p50{how}", []).append(median(took))
                figures.setdefault(f"{name}, p99{how}", []).append(quantiles(took, n=100, method="inclusive")[98])
    backend = exits[IN_BATCHES].exit.backend
    title = f"{work}, {LIVE} live, each sync 2 ms longer, a request"
    settings = {"clients": CLIENTS} if ask is opens else {}
    return Row(title, "s", figures, _targets(ask, backend), f"{backend} backend", settings)


def _targets(ask: Callable[..., Awaitable[None]], backend: str) -> list[Target]:
    one_to_sixteen, at_most_s = (1 / 4, 1 / 900) if ask is opens else (1 / 5, 1 / 150)
    targets = [Target("16 clients", "1 client", one_to_sixteen)]
    if backend == "userspace":  # the kernel's may be an emulated one
        targets.append(Target("16 clients", "", at_most_s))
    if ask is opens:
        targets.append(Target("16 clients, p50", "", 0.020))
    return targets
