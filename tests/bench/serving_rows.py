"""Rows about the server's process: what it answers how fast, how long it takes to start, how much memory it takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any

import msgspec

from appliance.domain.clock import HostClock
from appliance.network.wireguard import keys
from tests.bench import books, device
from tests.bench.asking import CONNECTIONS, Asker
from tests.bench.contest import Row, Target, take_turns
from tests.support.faults.real_exit import PROJECT, REGION, UnixConnection, real_exit
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from tests.support.faults.real_exit import RealExit

REQUESTS = 25  # on each connection, a round
LIVE = 250
CLIENTS = 16
POSTS = 12  # of each client, a round
SESSIONS = 20_000
MOST_A_SESSION = {"kernel": 600, "userspace": 800}  # bytes
MOST_A_DEVICE = {"kernel": 700, "userspace": 800}
POLL_S = 0.005
TICKS = 3
# An application that has one route and a server, and nothing else.
EMPTY_APP = """
import socket, sys, uvicorn
from litestar import Litestar, get
@get("/")
async def index() -> str:
    return ""
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    uvicorn.Server(uvicorn.Config(Litestar([index], logging_config=None), log_config=None)).run(sockets=[listener])
"""


@contextmanager
def an_exit(backend: str) -> Iterator[RealExit]:
    """Wide enough for all of the rows; not running."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, real_exit(Path(folder), backend) as exit_:
        exit_.environment["WG_APPLIANCE_WIREGUARD_SUBNET"] = "10.101.0.0/16"
        exit_.environment["WG_APPLIANCE_METER_INTERVAL"] = "10s"
        exit_.environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program's modules are compiled
        exit_.command("init")
        yield exit_


@contextmanager
def running(exit_: RealExit) -> Iterator[None]:
    exit_.launch()
    exit_.await_ready()
    yield
    exit_.stop()


# Answers -------------------------------------------------------------------------------------------------


def opening_row(backend: str, rounds: int) -> Row:
    with an_exit(backend) as exit_:
        token = exit_.token("ada", "paid")
        with running(exit_):
            return _opening_row(exit_, token, rounds)


def answering_rows(backend: str, rounds: int) -> Iterator[Row]:
    with an_exit(backend) as exit_:
        token = exit_.token("ada", "paid")
        with running(exit_):
            yield _status_row(exit_, token, rounds)
            yield _opening_row(exit_, token, rounds)


def _status_row(exit_: RealExit, token: str, rounds: int) -> Row:
    with exit_.connection() as connection:
        _, opened = connection.ask("POST", "/v1/sessions", token, {"region": REGION})
        target = f"/v1/sessions/{opened['id']}"
        _, status = connection.ask("GET", target, token)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, _bare_server(Path(folder) / "bare", status) as bare:
        askers = {"ours": Asker(exit_.api, target, token), "bare Litestar route": Asker(bare, target, token)}
        seconds = take_turns(rounds, {name: partial(asker.ask, REQUESTS) for name, asker in askers.items()})
        for asker in askers.values():
            asker.close()
    requests = REQUESTS * CONNECTIONS
    return Row(
        "GET /v1/sessions/{id} of a live session, a request",
        "s",
        {name: [s / requests for s in found] for name, found in seconds.items()},
        [Target("ours", "bare Litestar route", 1 / 0.75)],
        f"{CONNECTIONS} kept connections",
    )


@contextmanager
def _bare_server(path: Path, status: Any) -> Iterator[Path]:
    command = [sys.executable, "-m", "tests.bench.bare_server", str(path)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(status))
        process.stdin.close()
        try:
            until(path.exists, "the bare server listens")
            yield path
        finally:
            process.terminate()


def _opening_row(exit_: RealExit, token: str, rounds: int) -> Row:
    """Sessions opened by several clients at once while many are live; beside a peer added by a process of `wg`."""
    with exit_.connection() as connection:
        for _ in range(LIVE):
            assert connection.ask("POST", "/v1/sessions", token, {"region": REGION})[0] == 201
    found: dict[str, list[float]] = {"POST, p50": [], "POST, p99": [], "wg set, p50": [], "wg set, p99": []}
    for _ in range(rounds):
        for name, took in (("POST", _posts(exit_, token)), ("wg set", _wg_sets(exit_))):
            at = quantiles(took, n=100, method="inclusive")
            found[f"{name}, p50"].append(at[49])
            found[f"{name}, p99"].append(at[98])
    return Row(
        f"POST /v1/sessions to peer in the tunnel, {LIVE} live, {CLIENTS} clients at once",
        "s",
        found,
        remark=f"`wg set`, one at a time; {exit_.backend} backend",
    )


def _posts(exit_: RealExit, token: str) -> list[float]:
    took: list[float] = []
    ready = threading.Barrier(CLIENTS)

    def client() -> None:
        with exit_.connection() as connection:
            ready.wait(60)
            for _ in range(POSTS):
                began = time.perf_counter()
                status, opened = connection.ask("POST", "/v1/sessions", token, {"region": REGION})
                took.append(time.perf_counter() - began)
                assert status == 201, opened
                assert connection.ask("DELETE", f"/v1/sessions/{opened['id']}", token)[0] == 200

    with ThreadPoolExecutor(CLIENTS) as threads:
        for running in [threads.submit(client) for _ in range(CLIENTS)]:
            running.result()
    return took


def _wg_sets(exit_: RealExit) -> list[float]:
    """Peers of nobody's, which the server takes away again."""
    took = []
    with exit_.space.entered():
        for number in range(POSTS * 2):
            key = keys.encode(keys.public_key(os.urandom(32)))
            command = ["wg", "set", exit_.interface, "peer", key, "allowed-ips", f"10.102.0.{number}/32"]
            began = time.perf_counter()
            subprocess.run(command, check=True, timeout=60)
            took.append(time.perf_counter() - began)
    return took


# Starting ------------------------------------------------------------------------------------------------


def starting_rows(backend: str, rounds: int) -> Iterator[Row]:
    nothing = partial(_run, "-c", "pass")
    seconds = take_turns(rounds, {"wg-appliance --help": partial(_run, "-m", "appliance", "--help"), "python": nothing})
    yield Row("wg-appliance --help, beside python -c pass", "s", seconds)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, an_exit(backend) as exit_:

        def start() -> None:
            exit_.launch()
            until(lambda: answers(exit_.api, "/readyz"), "the exit is ready", every=POLL_S)

        def empty() -> None:
            path = Path(folder) / "empty"
            command = [sys.executable, "-c", EMPTY_APP, str(path)]
            with subprocess.Popen(command) as process:
                until(lambda: answers(path, "/"), "the empty app answers", every=POLL_S)
                process.terminate()
            path.unlink()

        def stop() -> None:
            if exit_.running():
                exit_.stop()

        seconds = take_turns(
            rounds,
            {"serve": start, "empty Litestar app": empty, "python": nothing},
            before={"serve": stop},
        )
        stop()
    yield Row("start to ready", "s", seconds, remark=f"{backend} backend, no sessions")


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=PROJECT, stdout=subprocess.DEVNULL, check=True, timeout=60)


def answers(path: Path, target: str) -> bool:
    try:
        with closing(UnixConnection(path)) as connection:
            return connection.ask("GET", target)[0] == 200
    except OSError:
        return False


# Memory --------------------------------------------------------------------------------------------------


def memory_row(backend: str, many: int, random: Random) -> Row:
    """Of the server's process, once it is ready and has ticked: with sessions, and with idle devices."""
    with an_exit(backend) as exit_:
        idle = _resident(exit_)
    full = {}
    for name, fill in (("session", books.fill), ("device", books.fill_idle)):
        with an_exit(backend) as exit_:
            fill(exit_.store, device.some_peers(0, many, random), HostClock().now(), 0, random)
            full[name] = _resident(exit_)
    most = {"session": MOST_A_SESSION[backend], "device": MOST_A_DEVICE[backend]}
    figures = {
        "idle": [idle],
        **{f"with {name}s": [resident] for name, resident in full.items()},
        **{f"a {name}": [(resident - idle) / many] for name, resident in full.items()},
        "80 MB": [80 * 10**6],
        **{f"{limit} B": [limit] for limit in most.values()},
    }
    targets = [Target("idle", "80 MB", 1.0), *(Target(f"a {name}", f"{limit} B", 1.0) for name, limit in most.items())]
    work = f"resident memory, idle and with {many:,} sessions or devices"
    return Row(work, "B", figures, targets, f"{backend} backend")


def _resident(exit_: RealExit) -> float:
    """After some ticks, the first of which may have restored the peers that later ones read."""
    whole = r'wg_appliance_tick_duration_seconds_count\{kind="whole"\}'
    with running(exit_):
        until(lambda: exit_.metric(whole) >= TICKS, "it has ticked", every=1)
        status = Path(f"/proc/{exit_.pid}/status").read_text(encoding="ascii")
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, status
    return int(found[1]) * 1024
