"""Rows that need neither root nor WireGuard: dumps from recorded bytes, and the pool of addresses."""

from __future__ import annotations

import struct
from functools import partial
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from appliance.network.address_pool import AddressPool
from appliance.network.netlink.dump import DumpCapacityExceeded
from appliance.network.wireguard.parse import DumpParser
from appliance.network.wireguard.uapi_answer import AnswerParser
from tests.bench.contest import Row, Target, take_turns
from tests.support.unit import dump_messages, uapi_reference
from tests.support.unit.dump_messages import FAMILY, PORT, SEQ, attr, device, device_attrs, done, nest, peer_attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

PEERS = 20_000
CHANGED = PEERS // 100
PEERS_A_MESSAGE = 18  # of two allowed-ips each, in the 4 KiB that the kernel fills
BUFFER = 32 * 1024  # what a recv() of a dump gives
PIECE = 208 * 1024  # what a recv() of a socket of wireguard-go's gives
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


def answer_row(rounds: int, random: Random) -> Row:
    """wireguard-go's answer, with 1 % of its peers changed between any two readings, each in another order."""
    answers = [_answer({}, random), _answer(dict.fromkeys(random.sample(range(PEERS), CHANGED), 7), random)]
    readings = [[answer] for answer in answers]
    parser = AnswerParser()
    seconds = take_turns(
        rounds,
        {
            "parsed and compared": _alternately(readings, lambda answer: _read_answer(parser, answer[0])),
            "parsed in plain Python": _alternately(readings, lambda answer: uapi_reference.reference(answer[0], 1)),
        },
    )
    size = len(answers[0])
    seconds["a tenth of a gigabyte a second"] = [10 * size / GIGABYTE] * rounds
    targets = [
        Target("parsed and compared", name, 1.0)
        for name in ("a tenth of a gigabyte a second", "parsed in plain Python")
    ]
    work = f"parse wireguard-go's dump of {PEERS:,} peers from memory, 1 % changed"
    return Row(work, "s", seconds, targets, f"{size / 1e6:.1f} MB in pieces of {PIECE // 1024} KiB")


def _answer(more_bytes: dict[int, int], random: Random) -> bytes:
    """As wireguard-go writes it: peers in the order of a map of Go's, which is another each time."""
    text = "private_key=" + "01" * 32 + "\nlisten_port=51820\n"
    for number in random.sample(range(PEERS), PEERS):
        text += (
            f"public_key={number.to_bytes(32).hex()}\npreshared_key={'00' * 32}\nprotocol_version=1\n"
            f"endpoint=198.51.100.7:{number}\nlast_handshake_time_sec=1700000000\nlast_handshake_time_nsec=123456789\n"
            f"tx_bytes=1000\nrx_bytes={1000 + more_bytes.get(number, 0)}\npersistent_keepalive_interval=0\n"
            f"allowed_ip=10.101.{number >> 8}.{number & 255}/32\nallowed_ip=fd65:7869:7400::{number:x}/128\n"
        )
    return f"{text}errno=0\n\n".encode()


def _read_answer(parser: AnswerParser, answer: bytes) -> None:
    parser.begin()
    for at in range(0, len(answer), PIECE):
        piece = answer[at : at + PIECE]
        parser.room()[: len(piece)] = piece
        parser.feed(len(piece))
    parser.dump(1)


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
