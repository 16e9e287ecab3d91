"""Rows that need neither root nor WireGuard: dumps from recorded bytes, and the pool of addresses."""

from __future__ import annotations

import struct
from functools import partial
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from appliance.network.address_pool import AddressPool
from appliance.network.netlink.dump import DumpCapacityExceeded
from appliance.network.wireguard.parse import DumpParser
from tests.bench.contest import Row, Target, take_turns
from tests.support.unit import dump_messages
from tests.support.unit.dump_messages import FAMILY, PORT, SEQ, attr, device, device_attrs, done, nest, peer_attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

PEERS = 20_000
CHANGED = PEERS // 100
PEERS_A_MESSAGE = 18  # of two allowed-ips each, in the 4 KiB that the kernel fills
BUFFER = 32 * 1024  # what a recv() of a dump gives
GIGABYTE = 10**9
PAIRS = 10_000


def parsing_row(rounds: int, random: Random) -> Row:
    """One dump read again and again, as bytes, with 1 % of its peers changed between any two readings."""
    readings = [[*_recorded({})], [*_recorded(dict.fromkeys(random.sample(range(PEERS), CHANGED), 7))]]
    size = sum(map(len, readings[0]))
    whole, alone = DumpParser(FAMILY), DumpParser(FAMILY)
    seconds = take_turns(
        rounds,
        {
            "parsed": _alternately(readings, partial(_parse, alone)),
            "parsed and compared": _alternately(readings, partial(_read, whole)),
        },
    )
    seconds["a gigabyte a second"] = [size / GIGABYTE] * rounds
    return Row(
        f"parse a dump of {PEERS:,} peers from memory, 1 % changed",
        "s",
        seconds,
        [Target("parsed", "a gigabyte a second", 1.0), Target("parsed and compared", "a gigabyte a second", 1.0)],
        f"{size / 1e6:.1f} MB in {len(readings[0])} buffers",
    )


def _recorded(more_bytes: dict[int, int]) -> Iterator[bytes]:
    """The buffers of a dump; `more_bytes` were received of some peers."""
    buffer = b""
    for first in range(0, PEERS, PEERS_A_MESSAGE):
        numbers = range(first, min(first + PEERS_A_MESSAGE, PEERS))
        message = device(device_attrs() if first == 0 else b"", *[_peer(n, more_bytes.get(n, 0)) for n in numbers])
        if len(buffer) + len(message) > BUFFER:
            yield buffer
            buffer = b""
        buffer += message
    yield buffer
    yield done()


def _peer(number: int, more_bytes: int) -> bytes:
    allowed_ips = dump_messages.allowed_ip(f"10.101.{number >> 8}.{number & 255}/32")
    allowed_ips += dump_messages.allowed_ip(f"fd65:7869:7400::{number:x}/128")
    return nest(0, peer_attrs(number, allowed_ips, rx=attr(7, struct.pack("=Q", 1000 + more_bytes))))


def _alternately(readings: Sequence[list[bytes]], read: Callable[[list[bytes]], object]) -> Callable[[], object]:
    turn = 0

    def run() -> object:
        nonlocal turn
        turn += 1
        return read(readings[turn % 2])

    return run


def _parse(parser: DumpParser, buffers: list[bytes]) -> None:
    while True:
        parser.begin(SEQ, PORT)
        try:
            for buffer in buffers:
                parser.feed(buffer, len(buffer))
        except DumpCapacityExceeded:
            continue
        return


def _read(parser: DumpParser, buffers: list[bytes]) -> None:
    _parse(parser, buffers)
    parser.result()


class PythonPool:
    """The same promises in plain Python: a set, searched from behind the last one given."""

    def __init__(self, network: IPv4Network) -> None:
        self._last = network.num_addresses - 2
        self._used: set[int] = set()
        self._next = 2

    def allocate(self) -> int:
        offset = self._next
        while offset in self._used:
            offset = offset + 1 if offset < self._last else 2
        self._used.add(offset)
        self._next = offset + 1 if offset < self._last else 2
        return offset

    def release(self, offset: int) -> None:
        self._used.remove(offset)


def pool_row(rounds: int, random: Random) -> Row:
    """Each pair gives a random address back and takes another: the pool stays as full as it is."""
    network, used = IPv4Network("10.101.0.0/16"), 65_000
    ours, theirs = AddressPool(network), PythonPool(network)
    contenders: dict[str, Callable[[], object]] = {}
    for name, pool in (("pool in C", ours), ("Python set, scanned", theirs)):
        taken = [pool.allocate() for _ in range(used)]
        random.shuffle(taken)
        contenders[name] = partial(_pairs, pool, taken)
    seconds = {name: [s / PAIRS for s in found] for name, found in take_turns(rounds, contenders).items()}
    seconds["a microsecond"] = [1e-6] * rounds
    targets = [Target("pool in C", "a microsecond", 1.0), Target("pool in C", "Python set, scanned", 1.0)]
    return Row("release and allocate in a /16 with 65,000 in use, a pair", "s", seconds, targets)


def _pairs(pool: AddressPool | PythonPool, taken: list[int]) -> None:
    release, allocate = pool.release, pool.allocate
    for at in range(PAIRS):
        release(taken[at])
        taken[at] = allocate()
