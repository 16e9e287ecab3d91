"""`python -m tests.bench.fleet_ten --exits 10 --sessions 2000`: whole exits of a fleet at once, far from their hub.

Each exit is the whole program with a tunnel in memory and its real store, in a namespace of its own; the first is the
hub, and what the others say to it, and hear, takes 75 ms each way. Prints processor time and memory of each kind, and
what is waited for, beside the targets. By default small: 3 exits with 50 sessions.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from appliance.domain import ids
from appliance.domain.clock import HostClock
from tests.bench import books
from tests.bench.processes import busy_s, memory_mb
from tests.support.faults.real_exit import PROJECT, UnixConnection
from tests.support.fleet.appliances import FleetAppliance, make_fleet
from tests.support.fleet.memory_exit import BUSY_VARIABLE
from tests.support.fleet.world import new_fleet_world
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.support.fleet.world import ExitSpace, FleetWorld

WAY_S = 0.075
RTT_MS = 2e3 * WAY_S
PORT, FAR_PORT = 7422, 7430
CLIENTS = 8  # of an exit, while its sessions are opened
ASKERS = 16  # at once, where opens a second are counted
ONE_BY_ONE, AT_ONCE = 20, 200  # opens that are timed
REVOKED = 3
LOOK_S = 0.05
PATIENCE = 20  # times that one is asked for again
LONG_S = 900.0
UNLIMITED = {"max_live_sessions": 0, "idle_timeout": 0, "requests_per_minute": 10**6, "seconds_limit": 0}


class MemoryAppliance(FleetAppliance):
    """Is one of the exits. `socket`: its API, also reached without its namespace."""

    def __init__(self, host: ExitSpace, directory: Path, busy: Path) -> None:
        directory.mkdir()
        self.socket = directory / "api"
        api = {"listen": ["127.0.0.1:8080", f"unix:{self.socket}"], "public_requests_per_minute": 10**6}
        tier = UNLIMITED | {"bytes_limit": "4TB"}
        fleet = {"listen": f"0.0.0.0:{PORT}", "advertise": f"{host.ip}:{FAR_PORT}"}
        changes = {"api": api | {"public_burst": 10**6}, "tiers.paid": tier, "tiers.free": tier, "fleet": fleet}
        changes |= {"wireguard": {"subnet": "10.101.0.0/16"}, "meter": {"interval": "10s"}}
        super().__init__(host, "kernel", directory / "x", changes)
        self._environment[BUSY_VARIABLE] = str(busy)

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tests.support.fleet.memory_exit", "--config", str(self.config), *arguments]

    @contextmanager
    def connection(self) -> Iterator[UnixConnection]:
        with closing(UnixConnection(self.socket)) as connection:
            yield connection

    def unsent(self) -> int:
        return self._count("SELECT count(*) FROM fleet_reports WHERE v > sent")

    def live(self) -> int:
        return self._count("SELECT count(*) FROM sessions WHERE state = 'live'")

    def _count(self, sql: str) -> int:
        with closing(sqlite3.connect(self.store, timeout=60)) as db:
            return int(db.execute(sql).fetchone()[0])


@dataclass
class TenExits:
    """`exits`: the first is the hub. `tokens`: one an account. `alone_ms`: a local open of an exit in no fleet."""

    exits: list[MemoryAppliance]
    busy: Path
    tokens: list[str]
    alone_ms: float = 0.0
    alone_mb: float = 0.0

    @property
    def hub(self) -> MemoryAppliance:
        return self.exits[0]

    @property
    def spokes(self) -> list[MemoryAppliance]:
        return self.exits[1:]

    def processes(self) -> dict[str, list[int]]:
        servers = self.hub.space.pids_of("nats-server")
        return {"hub": [self.hub.pid], "nats-server": servers, "a spoke": [each.pid for each in self.spokes]}


# What is asked -------------------------------------------------------------------------------------------


def opened(connection: UnixConnection, token: str, region: str) -> tuple[str, int]:
    """Returns its id, and how often it was refused for the moment (503) before."""
    for refused in range(PATIENCE):
        status, answer = connection.ask("POST", "/v1/sessions", token, {"region": region})
        if status == 201:
            return answer["id"], refused
        assert status == 503, (region, status, answer)
        time.sleep(LOOK_S)
    raise AssertionError(answer)


def open_many(at: MemoryAppliance, region: str, tokens: Sequence[str], many: int, clients: int) -> tuple[float, int]:
    """Returns the seconds that it took, and how often one was refused for the moment."""
    began = time.perf_counter()

    def client(number: int) -> int:
        with at.connection() as connection:
            return sum(opened(connection, tokens[n % len(tokens)], region)[1] for n in range(number, many, clients))

    with ThreadPoolExecutor(clients) as threads:
        refused = sum(threads.map(client, range(clients)))
    return time.perf_counter() - began, refused


def open_ms(at: MemoryAppliance, region: str, tokens: Sequence[str]) -> float:
    """Returns the median of one after another, each of another account while there are any."""
    took = []
    with at.connection() as connection:
        for n in range(ONE_BY_ONE):
            began = time.perf_counter()
            opened(connection, tokens[n % len(tokens)], region)
            took.append(time.perf_counter() - began)
    return 1e3 * median(took)


def spent(fleet: TenExits, what: str, seconds: float, act: Callable[[], object] = lambda: None) -> None:
    """Prints the share of a processor that each kind of process has while `act` runs, and for so many seconds."""
    pids = fleet.processes()
    before, began = {pid: busy_s(pid) for each in pids.values() for pid in each}, time.monotonic()
    act()
    time.sleep(max(0.0, seconds - (time.monotonic() - began)))
    took = time.monotonic() - began
    for kind, each in pids.items():
        if not each:
            continue  # there is no nats-server without a fleet
        used = [busy_s(pid) - before[pid] for pid in each]
        resident = [memory_mb("VmRSS", pid) for pid in each]
        click.echo(
            f"{what}, {kind}: {100 * sum(used) / len(used) / took:.2f} % of a processor ({sum(used):.1f} s of all in "
            f"{took:.0f} s), {median(resident):.1f} MB, at most {max(resident):.1f}"
        )


# The parts -----------------------------------------------------------------------------------------------


def alone(fleet: TenExits, seconds: float) -> None:
    """Measures exits that are in no fleet yet. The last has an account, which then goes into it."""
    exit_ = fleet.exits[-1]
    token = exit_.token("alone")
    spent(fleet, "in no fleet", seconds)
    fleet.alone_ms = open_ms(exit_, exit_.region, [token])
    fleet.alone_mb = median(memory_mb("VmRSS", each.pid) for each in fleet.exits[1:-1] or fleet.exits[1:])
    click.echo(f"in no fleet: a local open {fleet.alone_ms:.1f} ms; {fleet.alone_mb:.1f} MB")


def fill(fleet: TenExits, sessions: int) -> None:
    """Opens so many on each exit, by its own API, all exits at once."""

    def act() -> None:
        with ThreadPoolExecutor(len(fleet.exits)) as threads:
            made = [threads.submit(open_many, e, e.region, fleet.tokens, sessions, CLIENTS) for e in fleet.exits]
            click.echo(f"refused for the moment while sessions were opened: {sum(each.result()[1] for each in made)}")

    spent(fleet, f"opening {sessions:,} on each", 0, act)
    until(lambda: not any(each.unsent() for each in fleet.exits), "all that was opened is reported", LONG_S)


def reporting(fleet: TenExits, seconds: float) -> None:
    spent(fleet, "no traffic", seconds)
    fleet.busy.touch()
    time.sleep(10)  # the first report is due, and of all
    spent(fleet, "all sessions move, a report a minute", 2 * seconds)
    fleet.busy.unlink()
    until(lambda: not any(each.unsent() for each in fleet.exits), "all that moved is reported", LONG_S)


def revoke(fleet: TenExits, number: int) -> None:
    """Prints the milliseconds from the start and the end of the command until each exit refuses the token."""
    token = fleet.hub.token(f"revoked{number}")
    with closing(sqlite3.connect(fleet.hub.store, timeout=60)) as db:
        [(token_id,)] = db.execute("SELECT id FROM tokens WHERE hash = ?", (ids.token_hash(token),)).fetchall()
    for each in fleet.exits:
        until(lambda each=each: each.api("GET", "/v1/usage", token=token).status == 200, "it is known")  # type: ignore[misc]
    refused, held, done = dict[str, float](), threading.Barrier(len(fleet.exits) + 1), list[float]()

    def watch(exit_: MemoryAppliance) -> None:
        with exit_.connection() as connection:
            session, _ = opened(connection, token, exit_.region)
            held.wait(60)
            while connection.ask("GET", f"/v1/sessions/{session}", token)[0] == 200:
                time.sleep(LOOK_S)
            refused[exit_.name] = time.monotonic()

    with ThreadPoolExecutor(len(fleet.exits)) as threads:
        watching = [threads.submit(watch, each) for each in fleet.exits]
        held.wait(60)
        began = time.monotonic()
        fleet.hub.attempt("token", "revoke", token_id)  # that is busy may take longer than the command waits
        done.append(time.monotonic())
        for each in watching:
            each.result(60)
    after = ", ".join(f"{name} {1e3 * (at - done[0]):.0f}" for name, at in sorted(refused.items()))
    click.echo(
        f"revoked, 401 at the last exit {1e3 * (max(refused.values()) - done[0]):.0f} ms after the command returned "
        f"({1e3 * (max(refused.values()) - began):.0f} after it began; target 2000): {after}"
    )


def opening(fleet: TenExits) -> None:
    """Opens one by one, then many at once, at an API for its own region and for others'."""
    hub, near, far, tokens = fleet.hub, fleet.exits[1], fleet.exits[-1], fleet.tokens
    ways = (
        ("hub's own", hub, hub, 0),
        ("a spoke's own", near, near, 1),
        ("hub to spoke", hub, near, 2),
        ("spoke to hub", near, hub, 2),
        ("spoke to spoke", near, far, 3),
    )
    for name, at, to, trips in ways:
        took, again = open_ms(at, to.region, tokens), open_ms(at, to.region, tokens[:1])
        added, most = took - fleet.alone_ms, trips * RTT_MS + (20 if trips > 1 else 0)
        click.echo(
            f"open, {name}: {took:.0f} ms, {added:.0f} more than alone ({added / RTT_MS:.2f} RTT), target {most:.0f}; "
            f"one account's again and again {again:.0f}"
        )
    for name, at, to, _ in ways:
        took, refused = open_many(at, to.region, tokens, AT_ONCE, ASKERS)
        click.echo(f"{ASKERS} clients, {name}: {AT_ONCE / took:.1f} opens a second, {refused} refused for the moment")


def resent(fleet: TenExits, many: int) -> None:
    """Gives a spoke so many ended sessions that the hub has not heard of."""
    spoke = fleet.spokes[0]
    with closing(sqlite3.connect(spoke.store, timeout=60)) as db, db:
        accounts = [row[0] for row in db.execute("SELECT id FROM accounts LIMIT 100")]
        books.add_ended(db, many, accounts, HostClock().now().wall_ms)
    began = time.monotonic()

    def act() -> None:
        until(lambda: not spoke.unsent(), "all is reported", LONG_S)

    spent(fleet, f"{many:,} records", 0, act)
    took = time.monotonic() - began
    click.echo(
        f"{many:,} records of a spoke reported in {took:.1f} s, {many / took:.0f} a second (target 10,000 in 30)"
    )


# All of it -----------------------------------------------------------------------------------------------


@contextmanager
def running(world: FleetWorld, folder: Path, accounts: int, seconds: float) -> Iterator[TenExits]:
    busy = folder / "busy"
    exits = [MemoryAppliance(host, folder / f"{host.number}", busy) for host in world.hosts]
    fleet = TenExits(exits, busy, [])
    relay = [sys.executable, "-m", "tests.support.fleet.delaying_relay", str(FAR_PORT), str(PORT), str(WAY_S)]
    with ExitStack() as stack:
        far = exits[0].space.start(*relay, cwd=PROJECT)
        stack.callback(far.wait)
        stack.callback(far.kill)
        for each in exits:
            stack.callback(each.kill)
        try:
            for each in exits:
                each.start()
            alone(fleet, seconds)
            make_fleet(list(exits))
            click.echo(f"a fleet of {len(exits)}, {RTT_MS:.0f} ms between the hub and the others")
            fleet.tokens = [exits[0].token(f"customer{n}") for n in range(accounts)]
            until(lambda: all(_knows(each, fleet.tokens[-1]) for each in exits), "each exit knows the last token")
            yield fleet
        except BaseException as error:
            for each in exits:
                warnings = [line for line in each.log().splitlines() if " INFO " not in line]
                error.add_note(f"log of {each.name}:\n" + "\n".join(warnings[-5:]))
            raise


def _knows(exit_: MemoryAppliance, token: str) -> bool:
    with exit_.connection() as connection:
        try:
            return connection.ask("GET", "/v1/usage", token)[0] == 200
        except (OSError, HTTPException):
            return False


@click.command()
@click.option("--exits", default=3, show_default=True)
@click.option("--sessions", default=50, show_default=True, help="Live on each exit.")
@click.option("--accounts", default=20, show_default=True)
@click.option("--records", default=200, show_default=True, help="Ended sessions that a spoke reports at once.")
@click.option("--seconds", default=20.0, show_default=True, help="In which what is used at rest is measured.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the exits' files are; a short path.")
def main(**asked: Any) -> None:
    """Measure a fleet at once on this machine."""
    if backend_here() is None:
        raise click.ClickException(NO_ROOT)
    with (
        tempfile.TemporaryDirectory(prefix="ten-", dir=asked["folder"]) as folder,
        new_fleet_world(asked["exits"], 0) as world,
        running(world, Path(folder), asked["accounts"], asked["seconds"]) as fleet,
    ):
        spent(fleet, "no sessions", asked["seconds"])
        click.echo(
            f"a spoke has {median(memory_mb('VmRSS', e.pid) for e in fleet.spokes) - fleet.alone_mb:.1f} MB more"
        )
        fill(fleet, asked["sessions"])
        click.echo(f"{sum(each.live() for each in fleet.exits):,} sessions are live")
        reporting(fleet, asked["seconds"])
        for number in range(REVOKED):
            revoke(fleet, number)
        opening(fleet)
        resent(fleet, asked["records"])


if __name__ == "__main__":
    main()
