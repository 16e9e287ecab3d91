"""`python -m tests.faults.churn --peers 5000 --dumps 200`: dumps of a device whose peers another process changes."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from random import Random
from typing import TYPE_CHECKING

import click

from appliance.domain.errors import DumpInterrupted
from appliance.network.wireguard import keys
from appliance.network.wireguard.tunnel import DeviceChange, Peer, PutPeer
from tests.support.faults.churner import Churner
from tests.support.faults.talker import Talker, tunnel_named
from tests.support.faults.violations import require
from tests.support.netns import new_namespace
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel_contract import PORT, PRIVATE_KEY, UP, allowed, prefix, until, wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from appliance.network.wireguard.tunnel import Dump, PeerState, Tunnel
    from tests.support.netns import Namespace

PER_SECOND = 500
MOST_INTERRUPTED = 10  # for each dump that is whole
FIRST_ADDRESS = ip_address("10.0.0.2")


@dataclass
class Seen:
    """What came of the dumps. `interrupted`: how often the kernel said so; `failed`: and how often to the end."""

    peers: int
    whole: int = 0
    failed: int = 0
    interrupted: int = 0
    moved: int = 0  # bytes, by the counters of those who talk
    rate: float = 0
    took: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        took = sorted(self.took)
        return (
            f"{self.whole} whole dumps of {self.peers} peers while {self.rate:.0f} a second were added or removed, "
            f"{1000 * took[len(took) // 2]:.0f} ms each (longest {1000 * took[-1]:.0f} ms); {self.interrupted} "
            f"interruptions, {self.failed} dumps given up; {self.moved} bytes counted"
        )


class Watch:
    """Takes dumps, and knows who has to be in them."""

    def __init__(self, ground: Ground, churner: Churner) -> None:
        self.seen = Seen(peers=len(ground.staying) + len(ground.passing))
        self._ground = ground
        self._staying = wanted(*ground.staying)
        self._passing = wanted(*ground.passing)
        self._churner = churner
        self._last: Mapping[bytes, PeerState] = {}

    async def look(self) -> None:
        """One dump, whole or honest. Raises Violated."""
        self._churner.begin()
        began = time.monotonic()
        try:
            dump = await self._ground.tunnel.dump()
        except DumpInterrupted:
            self.seen.failed += 1
            return
        self.seen.took.append(time.monotonic() - began)
        there, gone = self._churner.untouched()
        found = allowed(dump)
        expected = self._staying | {key: self._passing[key] for key in there}
        missing = [keys.encode(key) for key in expected if found.get(key) != expected[key]]
        require(not missing, "nobody who stayed is missing", len(missing), *missing[:3])
        strange = found.keys() & gone | found.keys() - self._staying.keys() - self._passing.keys()
        require(not strange, "nobody who was gone is there", *strange)
        self._compare(dump)
        self.seen.whole += 1

    def _compare(self, dump: Dump) -> None:
        """A peer that comes twice is a MalformedDump already."""
        for key in self._staying if self._last else ():
            before, after = self._last[key], dump.peers[key]
            pairs = zip(_counters(before), _counters(after), strict=True)
            require(all(old <= new for old, new in pairs), "no counter goes down", before, after)
        self._last = dump.peers

    def summed_up(self) -> Seen:
        self.seen.moved = sum(self._last[talker.public_key].rx_bytes for talker in self._ground.talkers)
        self.seen.rate = self._churner.rate
        self.seen.interrupted = self._ground.tunnel.dump_retries
        return self.seen


def _counters(state: PeerState) -> tuple[int, int, int]:
    return state.rx_bytes, state.tx_bytes, state.last_handshake_ns


@dataclass(frozen=True)
class Ground:
    """A device with its peers. Every second one stays; the first and the last of these talk."""

    name: str
    tunnel: Tunnel
    talkers: Sequence[Talker]
    staying: Sequence[Peer]
    passing: Sequence[Peer]


@asynccontextmanager
async def _ground(backend: str, peers: int, random: Random) -> AsyncIterator[Ground]:
    name = f"wgn{secrets.token_hex(4)}"
    secret = [random.randbytes(32) for _ in range(peers)]
    addresses = [f"{FIRST_ADDRESS + number}/32" for number in range(peers)]
    everybody = [Peer(keys.public_key(k), frozenset({prefix(a)})) for k, a in zip(secret, addresses, strict=True)]
    staying, passing = everybody[::2], everybody[1::2]
    async with AsyncExitStack() as stack:
        tunnel = await stack.enter_async_context(_device(backend, name))
        await tunnel.apply([PutPeer(each) for each in everybody])
        talkers: list[Talker] = []
        for number in (0, 2 * len(staying) - 2):
            talker = Talker(backend, f"{name}{len(talkers)}", secret[number], addresses[number])
            stack.push_async_callback(talker.close)
            await talker.dial(keys.public_key(PRIVATE_KEY), PORT)
            await _shake_hands(talker, tunnel)
            talkers.append(talker)
        yield Ground(name, tunnel, talkers, staying, passing)


@asynccontextmanager
async def _device(backend: str, name: str) -> AsyncIterator[Tunnel]:
    tunnel = tunnel_named(backend, name)
    try:
        await tunnel.change_link(UP)
        await tunnel.configure(DeviceChange(PRIVATE_KEY, PORT))
        yield tunnel
    finally:
        await tunnel.delete()
        await tunnel.close()


async def _shake_hands(talker: Talker, tunnel: Tunnel) -> None:
    async def shaken() -> bool:
        talker.talk()
        return (await tunnel.dump()).peers[talker.public_key].last_handshake_ns > 0

    await until(shaken, "a handshake")


def run(peers: int, dumps: int, per_second: int, backend: str, seed: int) -> Seen:
    """Raises Violated."""
    with new_namespace() as space, space.entered():
        return asyncio.run(_run(space, peers, dumps, per_second, backend, Random(seed)))  # noqa: S311 (a test's choices)


async def _run(space: Namespace, peers: int, dumps: int, per_second: int, backend: str, random: Random) -> Seen:
    async with _ground(backend, peers, random) as ground:
        churner = Churner(space, ground.name, ground.passing, random, per_second=per_second, there=True)
        watch = Watch(ground, churner)
        with churner.at_work():
            while watch.seen.whole < dumps:
                for talker in ground.talkers:
                    talker.talk()
                await watch.look()
                require(watch.seen.failed <= MOST_INTERRUPTED * dumps, "dumps come through", watch.seen.failed)
        return watch.summed_up()


@click.command()
@click.option("--peers", default=5000, show_default=True)
@click.option("--dumps", default=200, show_default=True)
@click.option("--per-second", default=PER_SECOND, show_default=True, help="Peers that are added or removed.")
@click.option("--seed", type=int, help="Of the keys and the choices; left out: a random one.")
def main(peers: int, dumps: int, per_second: int, seed: int | None) -> None:
    """Dump a device under another process's changes; exit status 1 when a dump is wrong."""
    backend = backend_here()
    if backend is None:
        raise click.ClickException(NO_ROOT)
    seed = secrets.randbelow(2**31) if seed is None else seed
    click.echo(f"{run(peers, dumps, per_second, backend, seed)}; {backend} backend, seed {seed}")


if __name__ == "__main__":
    main()
