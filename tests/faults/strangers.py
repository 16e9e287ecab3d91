"""`python -m tests.faults.strangers --sessions 250 --ticks 60`: the appliance beside somebody who adds and removes
peers of his own on its interface. It removes them, and no session's client notices."""

from __future__ import annotations

import asyncio
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random
from typing import TYPE_CHECKING

import click

from appliance.network.wireguard import keys
from appliance.network.wireguard.tunnel import Peer
from tests.support.faults.churner import Churner
from tests.support.faults.real_exit import REGION
from tests.support.faults.serving import serving
from tests.support.faults.talker import Talker
from tests.support.faults.violations import require
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.waiting import until
from tests.support.tunnel_contract import PORT, prefix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.support.faults.real_exit import RealExit

PER_SECOND = 500
STRANGERS = 2000
FIRST_ADDRESS = ip_address("10.200.0.1")
SUBNET = "10.101.0.0/16"
AT_ONCE = 4
PAUSE_S = 0.2
TICKS, FAILED_TICKS = "wg_appliance_ticks_total", "wg_appliance_ticks_failed_total"


@dataclass(frozen=True)
class Seen:
    sessions: int
    ticks: int
    failed_ticks: int
    rate: float
    removed: int
    lines: int  # that say so in the log
    moved: int

    def __str__(self) -> str:
        return (
            f"{self.sessions} sessions in {self.ticks} ticks, {self.failed_ticks} of them failed, while "
            f"{self.rate:.0f} strangers a second were added or removed and {self.removed} removed by the appliance, "
            f"in {self.lines} lines of its log: "
            f"no session's peer was restored or lost; {self.moved} bytes counted"
        )


@dataclass(frozen=True)
class Session:
    id: str
    private_key: bytes
    address: str

    @property
    def key(self) -> str:
        return keys.encode(keys.public_key(self.private_key))


class Watch:
    """Asks for the sessions whose clients talk, as often as they do."""

    def __init__(self, exit_: RealExit, token: str) -> None:
        self._exit = exit_
        self._token = token
        self._counted: dict[str, tuple[int, int]] = {}

    def look(self, sessions: Sequence[Session]) -> None:
        for session in sessions:
            with self._exit.connection() as connection:
                status, shown = connection.ask("GET", f"/v1/sessions/{session.id}", self._token)
            require(status == 200 and "terminated_at" not in shown, "the session lives", status, shown)
            now, before = (shown["bytes_in"], shown["bytes_out"]), self._counted.get(session.id, (0, 0))
            require(now[0] >= before[0] and now[1] >= before[1], "no figure goes down", before, shown)
            self._counted[session.id] = now

    def has_counted(self, sessions: Sequence[Session]) -> bool:
        """Whether something has been counted of each."""
        return all(any(self._counted.get(session.id, ())) for session in sessions)

    def settle(self, sessions: Sequence[Session]) -> int:
        """Nobody talks any more: what is counted is what the tunnel counted. Returns that."""

        def equal() -> bool:
            self.look(sessions)
            lines = self._exit.space.run("wg", "show", self._exit.interface, "transfer").stdout.splitlines()
            real = {key: (int(rx), int(tx)) for key, rx, tx in map(str.split, lines)}
            return all(self._counted[session.id] == real[session.key] for session in sessions)

        until(equal, "the sessions' bytes are those of `wg show transfer`")
        return sum(map(sum, self._counted.values()))


def run(sessions: int, ticks: int, per_second: int, backend: str, seed: int) -> Seen:
    """Raises Violated."""
    random = Random(seed)  # noqa: S311 (a test's choices)
    with serving(backend, WIREGUARD_SUBNET=SUBNET) as exit_, exit_.space.entered():
        return asyncio.run(_run(exit_, sessions, ticks, per_second, random))


async def _run(exit_: RealExit, many: int, ticks: int, per_second: int, random: Random) -> Seen:
    token = exit_.token("anna", "free")
    opened = _open(exit_, token, [random.randbytes(32) for _ in range(many)])
    talking = [opened[0], opened[-1]]
    peers = exit_.peers()
    strangers = [
        Peer(random.randbytes(32), frozenset({prefix(f"{FIRST_ADDRESS + number}/32")})) for number in range(STRANGERS)
    ]
    churner = Churner(exit_.space, exit_.interface, strangers, random, per_second=per_second, there=False)
    ticked, failed = exit_.metric(TICKS), exit_.metric(FAILED_TICKS)
    async with _talkers(exit_, talking) as talkers:
        watch = Watch(exit_, token)
        with churner.at_work():
            # Ticks may follow each other at once, so the clients get to talk all the same.
            while exit_.metric(TICKS) < ticked + ticks or not watch.has_counted(talking):
                for talker in talkers:
                    talker.talk()
                watch.look(talking)
                await asyncio.sleep(PAUSE_S)
        ticked, failed = exit_.metric(TICKS) - ticked, exit_.metric(FAILED_TICKS) - failed
        until(lambda: exit_.peers() == peers, "the tunnel holds the sessions' peers and no others")
        moved = watch.settle(talking)
    written = exit_.log.read_text(encoding="utf-8")
    for word in ("peers restored", "session ended", "allowed-ips set", "Traceback"):
        require(word not in written, "no session is touched", word, written[-3000:])
    require(len(exit_.rows("SELECT 1 FROM sessions WHERE state = 'live'")) == many, "all sessions live")
    removals = [int(count) for count in re.findall(r"peers of no session removed count=(\d+)", written)]
    return Seen(many, int(ticked), int(failed), churner.rate, sum(removals), len(removals), moved)


def _open(exit_: RealExit, token: str, private_keys: Sequence[bytes]) -> list[Session]:
    def one(private_key: bytes) -> Session:
        public_key = keys.encode(keys.public_key(private_key))
        with exit_.connection() as connection:
            body = {"region": REGION, "client_public_key": public_key}
            status, session = connection.ask("POST", "/v1/sessions", token, body)
        require(status == 201, "a session is opened", status, session)
        address = re.search(r"^Address = ([^,\s]+)", session["wg_config"], re.MULTILINE)
        assert address is not None
        return Session(session["id"], private_key, address[1])

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(one, private_keys))


@asynccontextmanager
async def _talkers(exit_: RealExit, sessions: Sequence[Session]) -> AsyncIterator[list[Talker]]:
    shown = exit_.space.run("wg", "show", exit_.interface, "public-key").stdout
    exit_key = keys.parse_public_key(shown.strip(), "the exit's")
    async with AsyncExitStack() as stack:
        talkers = []
        for number, session in enumerate(sessions):
            talkers.append(Talker(exit_.backend, f"{exit_.interface}{number}", session.private_key, session.address))
            stack.push_async_callback(talkers[-1].close)
            await talkers[-1].dial(exit_key, PORT)
        yield talkers


@click.command()
@click.option("--sessions", default=250, show_default=True)
@click.option("--ticks", default=60, show_default=True, help="One a second.")
@click.option("--per-second", default=PER_SECOND, show_default=True, help="Strangers that are added or removed.")
@click.option("--seed", type=int, help="Of the keys and the choices; left out: a random one.")
def main(sessions: int, ticks: int, per_second: int, seed: int | None) -> None:
    """Run the appliance beside a stranger; exit status 1 when a session is touched."""
    backend = backend_here()
    if backend is None:
        raise click.ClickException(NO_ROOT)
    seed = secrets.randbelow(2**31) if seed is None else seed
    click.echo(f"{run(sessions, ticks, per_second, backend, seed)}; {backend} backend, seed {seed}")


if __name__ == "__main__":
    main()
