"""`python -m tests.faults.bad_clients --many 10000`: what good clients get while bad ones are at the same server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any

import click

from tests.faults.attacker import ATTACKS, TLS_ATTACKS
from tests.support.faults.real_exit import PROJECT, REGION
from tests.support.faults.tcp_exit import ADDRESS, serving_tcp
from tests.support.faults.violations import require
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.waiting import READY_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.support.faults.tcp_exit import TcpExit

FEW = 5  # good answers at least, while an attack goes on
MOST_MEMORY = 64 * 2**20  # more than before
DEFAULTS = {"API_PUBLIC_REQUESTS_PER_MINUTE": "60", "API_PUBLIC_BURST": "10", "METER_INTERVAL": "10s"}


@dataclass
class Good:
    """A client that polls its session on a kept connection, dials anew, and opens and closes sessions."""

    exit_: TcpExit
    token: str
    session: str
    took: list[float] = field(default_factory=list)
    again: int = 0  # requests that were sent once more, as the server had closed a kept connection
    faults: list[object] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(READY_SECONDS * 2)
            require(not thread.is_alive(), "a good client is never kept waiting for good")

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self.exit_.connection() as connection:
                    for _ in range(5):
                        self._ask(connection, "GET", f"/v1/sessions/{self.session}", 200)
                        time.sleep(0.02)
                    opened = self._ask(connection, "POST", "/v1/sessions", 201, {"region": REGION})
                    if opened is not None:
                        self._ask(connection, "DELETE", f"/v1/sessions/{opened['id']}", 200)
        except (OSError, HTTPException) as error:
            self.faults.append(error)

    def _ask(self, connection: Any, method: str, path: str, status: int, body: object = None) -> Any:
        began = time.perf_counter()
        try:
            found, answer = connection.ask(method, path, self.token, body)
        except (OSError, HTTPException):
            connection.close()
            self.again += 1
            found, answer = connection.ask(method, path, self.token, body)
        self.took.append(time.perf_counter() - began)
        if found != status:
            self.faults.append((method, path, found, answer))
            return None
        return answer


@dataclass(frozen=True)
class Seen:
    """What an attack did, and what the good client got meanwhile; sizes in bytes, times in seconds."""

    attack: str
    did: Mapping[str, int]
    answers: int
    again: int
    median: float
    slowest_of_100: float
    slowest: float
    memory_before: int
    memory_after: int

    def __str__(self) -> str:
        did = ", ".join(f"{what} {many}" for what, many in sorted(self.did.items()))
        return (
            f"{self.attack} ({did}): {self.answers} good answers, {self.again} asked twice, "
            f"p50 {self.median * 1e3:.0f} ms, p99 {self.slowest_of_100 * 1e3:.0f} ms, "
            f"at most {self.slowest * 1e3:.0f} ms; "
            f"{self.memory_before / 2**20:.1f} -> {self.memory_after / 2**20:.1f} MiB"
        )


def run(many: int, seconds: float, backend: str, report: Callable[[Seen], None], *, tls: bool = False) -> None:
    """Raises Violated where a good client goes without, or something is left of an attack."""
    with serving_tcp(backend, tls=tls, **DEFAULTS) as exit_:
        ada, eve = exit_.token("ada", "paid"), exit_.token("eve", "paid")
        with exit_.connection() as connection:
            _, opened = connection.ask("POST", "/v1/sessions", ada, {"region": REGION})
            connection.ask("GET", "/v1/usage", eve)  # known from here on
        before, logged = _Held.of(exit_), len(exit_.log.read_text(encoding="utf-8"))
        for name in TLS_ATTACKS if tls else ATTACKS:
            report(_under(name, exit_, Good(exit_, ada, opened["id"]), eve, many, seconds))
            until(lambda: _Held.of(exit_).files <= before.files, "the server's files are those from before")
            until(lambda: exit_.metric('wg_appliance_sessions_live{tier="paid"}') == 1, "no session is left")
        after = _Held.of(exit_)
        require(after.memory <= before.memory + MOST_MEMORY, "memory is bounded", before, after)
        faults = [line for line in exit_.log.read_text(encoding="utf-8")[logged:].splitlines() if " INFO " not in line]
        require(faults == [], "nothing of it is logged", faults[:20], len(faults))


def _under(name: str, exit_: TcpExit, good: Good, token: str, many: int, seconds: float) -> Seen:
    before = _Held.of(exit_)
    options = {"port": ADDRESS[1], "token": token, "many": many, "seconds": seconds}
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    with good.asking(), exit_.space.entered():
        command = [sys.executable, "-m", "tests.faults.attacker", name, *words]
        attack = subprocess.run(
            command, cwd=PROJECT, capture_output=True, text=True, timeout=seconds * 4 + READY_SECONDS, check=False
        )
    require(attack.returncode == 0, "the attack was carried out", attack.stderr[-2000:])
    require(good.faults == [], f"good clients are served during {name}", good.faults[:5], len(good.faults))
    require(len(good.took) >= FEW, f"good clients get answers during {name}", len(good.took))
    cuts = quantiles(good.took, n=100, method="inclusive")
    return Seen(
        name,
        json.loads(attack.stdout),
        len(good.took),
        good.again,
        cuts[49],
        cuts[98],
        max(good.took),
        before.memory,
        _Held.of(exit_).memory,
    )


@dataclass(frozen=True)
class _Held:
    memory: int
    files: int

    @classmethod
    def of(cls, exit_: TcpExit) -> _Held:
        resident = int(Path(f"/proc/{exit_.pid}/statm").read_text(encoding="ascii").split()[1])
        return cls(resident * 4096, len(list(Path(f"/proc/{exit_.pid}/fd").iterdir())))


@click.command()
@click.option("--many", default=10_000, show_default=True, help="Connections of each attack.")
@click.option("--seconds", default=20.0, show_default=True, help="Of each attack.")
def main(many: int, seconds: float) -> None:
    """Attack a server of our own; exit status 1 when good clients go without, or something is left."""
    backend = backend_here()
    if backend is None:
        raise click.ClickException(NO_ROOT)
    for tls in (False, True):
        run(many, seconds, backend, lambda seen: click.echo(str(seen)), tls=tls)
    click.echo(f"good clients were served all the time; {backend} backend")


if __name__ == "__main__":
    main()
