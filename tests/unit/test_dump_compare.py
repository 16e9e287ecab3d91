"""Dumps of one device compared with the one before, in C, against a plain model of the device."""

from __future__ import annotations

import random
import struct
import weakref
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from appliance._native import ffi, lib
from appliance.domain.errors import MalformedDump
from appliance.network.netlink.dump import DumpCapacityExceeded
from appliance.network.wireguard.parse import DumpParser
from appliance.network.wireguard.peer_table import PeerTable, TableCapacity
from appliance.network.wireguard.tunnel import Dump, PeerState
from tests.support.unit.dump_messages import (
    FAMILY,
    PORT,
    SEQ,
    attr,
    device,
    device_attrs,
    done,
    key,
    nest,
    peer_attrs,
    socket_address,
)
from tests.support.unit.dump_messages import allowed_ip as ip

ADDRESSES = ("10.0.0.2/32", "10.0.0.3/32", "fd00::2/128", "0.0.0.0/0")
PEERS_A_MESSAGE = 100
Model = dict[int, tuple[int, int, int, tuple[str, ...]]]  # in the device's order: rx, tx, handshake s, allowed-ips


def recorded(model: Model, ifindex: int = 9) -> bytes:
    peers = [
        nest(
            0,
            peer_attrs(
                number,
                b"".join(map(ip, addresses)),
                rx=attr(7, struct.pack("=Q", rx)),
                tx=attr(8, struct.pack("=Q", tx)),
                handshake=attr(6, struct.pack("=qq", handshake, 0)),
            ),
        )
        for number, (rx, tx, handshake, addresses) in model.items()
    ]
    first = device(device_attrs(ifindex=attr(1, struct.pack("=I", ifindex))), *peers[:PEERS_A_MESSAGE])
    more = (peers[at : at + PEERS_A_MESSAGE] for at in range(PEERS_A_MESSAGE, len(peers), PEERS_A_MESSAGE))
    return first + b"".join(device(b"", *each) for each in more) + done()


def read(parser: DumpParser, recording: bytes) -> Dump:
    parser.begin(SEQ, PORT)
    assert parser.feed(recording, len(recording))
    return parser.result()


figures = st.tuples(
    st.integers(0, 3),
    st.integers(0, 3) | st.just(2**64 - 1),
    st.integers(0, 2),
    st.lists(st.sampled_from(ADDRESSES), unique=True).map(tuple),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Model]:
    """A device's states, one after another: peers are changed, removed, added at the end, and put in another order."""
    model: Model = {number: draw(figures) for number in range(draw(st.integers(0, 6)))}
    states = [dict(model)]
    for _ in range(draw(st.integers(1, 5))):
        for number in draw(st.sets(st.integers(0, 9), max_size=4)):
            how = draw(st.integers(0, 2))
            if how == 0:
                model.pop(number, None)
            elif how == 1:
                model[number] = draw(figures)
            elif number in model:
                model[number] = model.pop(number)
        states.append(dict(model))
    return states


@settings(max_examples=300)
@given(histories())
def test_the_reported_changes_are_those_of_a_model(states: list[Model]) -> None:
    """Whatever happens to a device, what is said to have changed has, and nothing else; the peers are the device's."""
    parser = DumpParser(FAMILY, TableCapacity(16, 64))
    before: Dump | None = None
    model: Model = {}
    for state in states:
        dump = read(parser, recorded(state))
        fresh = read(DumpParser(FAMILY, TableCapacity(16, 64)), recorded(state))
        assert dump == fresh
        changed = {key(n) for n in state.keys() | model.keys() if as_set(state.get(n)) != as_set(model.get(n))}
        assert reported(dump, before) >= changed
        # Another order of the same allowed-ips may be said to be a change, and nothing else that is none.
        assert reported(dump, before) <= changed | {key(n) for n in state if state[n] != model.get(n)}
        before, model = dump, state


def as_set(figures: tuple[int, int, int, tuple[str, ...]] | None) -> object:
    return figures and (*figures[:3], frozenset(figures[3]))


def reported(dump: Dump, before: Dump | None) -> set[bytes]:
    return set(dump.changed_since(before))


@pytest.mark.parametrize("seed", range(3))
def test_thousands_against_a_model(seed: int) -> None:
    """The same for a device that fills up and empties again: all the memory there is grows, and nothing is mixed up."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable one is wanted
    parser = DumpParser(FAMILY)
    before: Dump | None = None
    model: Model = {}
    for count in (0, 1, 700, 2000, 1990, 3, 1500, 0, 40):
        was = dict(model)
        for number in chance.sample(sorted(model), max(0, len(model) - count)):
            del model[number]
        while len(model) < count:
            model[chance.randrange(1 << 30)] = figures_by(chance)
        for number in chance.sample(sorted(model), len(model) // 100):
            model[number] = figures_by(chance)
        dump = read_growing(parser, recorded(model))
        assert reported(dump, before) == {key(n) for n in model.keys() | was.keys() if model.get(n) != was.get(n)}
        assert {k: (p.rx_bytes, p.tx_bytes, p.last_handshake_ns // 10**9) for k, p in dump.peers.items()} == {
            key(n): each[:3] for n, each in model.items()
        }
        before = dump


def figures_by(chance: random.Random) -> tuple[int, int, int, tuple[str, ...]]:
    ips = tuple(sorted(chance.sample(ADDRESSES, chance.randrange(len(ADDRESSES)))))
    return chance.randrange(1 << 64), chance.randrange(1 << 64), chance.randrange(1 << 33), ips


def read_growing(parser: DumpParser, recording: bytes) -> Dump:
    """As whoever asks again until there is room."""
    while True:
        with suppress(DumpCapacityExceeded):
            return read(parser, recording)


PEER = (5, 6, 7, ("10.0.0.2/32",))


def test_an_earlier_dump_stays() -> None:
    """A dump is what it was when it was read, whatever is read after it."""
    parser = DumpParser(FAMILY)
    first = read(parser, recorded({1: PEER, 2: PEER}))
    second = read(parser, recorded({1: PEER, 2: (6, *PEER[1:]), 3: PEER}))
    third = read(parser, recorded({3: PEER}))
    assert (first.peers[key(2)].rx_bytes, second.peers[key(2)].rx_bytes) == (5, 6)
    assert first.peers.keys() == {key(1), key(2)}
    assert second.changed_since(first) == {key(2), key(3)}
    assert third.peers == {key(3): second.peers[key(3)]}


@pytest.mark.parametrize("then", [{1: PEER, 2: PEER}, {2: PEER}])
def test_an_earlier_dump_goes(then: Model) -> None:
    """A dump that is no longer used takes no memory, whether or not later ones have their peers in the same order."""
    parser = DumpParser(FAMILY)
    first = read(parser, recorded({1: PEER, 2: PEER}))
    gone = weakref.ref(first.peers)
    read(parser, recorded(then))
    last = read(parser, recorded(then))
    del first
    assert gone() is None
    assert last.peers.keys() == {key(n) for n in then}


def test_memory_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading again and again takes two tables. A dump that is held keeps its own, and so does who goes through one."""
    made: list[TableCapacity] = []
    monkeypatch.setattr(
        "appliance.network.wireguard.dump_tables.PeerTable", lambda room: (made.append(room), PeerTable(room))[1]
    )
    parser = DumpParser(FAMILY)
    kept = read(parser, recorded({1: PEER}))
    keys_of_a_dump = iter(read(parser, recorded({2: PEER, 3: PEER})).peers)
    assert next(keys_of_a_dump) == key(2)
    for number in range(20):
        dump = read(parser, recorded({number: PEER, 99: PEER}))
    assert dump.peers.keys() == {key(19), key(99)}
    assert len(made) == 2 + 2
    assert kept.peers.keys() == {key(1)}
    assert list(keys_of_a_dump) == [key(3)]


def test_objects_of_those_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading, comparing and listing make no object of any peer; a look-up makes one."""
    made: list[int] = []
    make = PeerTable.peer
    monkeypatch.setattr(PeerTable, "peer", lambda table, place: (made.append(place), make(table, place))[1])
    parser = DumpParser(FAMILY)
    first = read(parser, recorded({1: PEER, 2: PEER}))
    read(parser, recorded({1: PEER, 3: PEER}))
    third = read(parser, recorded({1: (6, *PEER[1:]), 3: PEER}))
    assert third.changed_since(first) == {key(1), key(2), key(3)}
    assert set(third.peers) == {key(1), key(3)}
    assert key(2) not in third.peers
    assert made == []
    assert third.peers[key(3)] == third.peers[key(3)]
    assert made == [1, 1]


def test_a_peer_is_found_by_its_key_alone() -> None:
    """A peer is found by its key and by nothing else."""
    peers = read(DumpParser(FAMILY), recorded({1: PEER, 2: PEER})).peers
    assert key(2) in peers
    assert peers[key(2)].public_key == key(2)
    for other in (key(3), b"", key(1)[:-1], key(1) + b"\0"):
        assert other not in peers
        assert peers.get(other) is None
        with pytest.raises(KeyError):
            peers[other]
    assert "peer" not in peers
    assert key(1) not in read(DumpParser(FAMILY), recorded({})).peers


def test_against_an_older_one() -> None:
    """A dump that was skipped hides nothing: compared with an older one, all that changed since is said."""
    parser = DumpParser(FAMILY)
    first = read(parser, recorded({1: PEER, 2: PEER}))
    read(parser, recorded({1: (6, *PEER[1:]), 2: PEER}))
    third = read(parser, recorded({1: (6, *PEER[1:]), 3: PEER}))
    assert third.changed_since(first) == {key(1), key(2), key(3)}
    assert set(third.changed_since(None)) == {key(1), key(3)}


def test_every_peer_of_another_interface_is_another_one() -> None:
    """On another interface every peer is another one, be its figures the same."""
    parser = DumpParser(FAMILY)
    first = read(parser, recorded({1: PEER, 2: PEER}))
    other = read(parser, recorded({1: PEER}, ifindex=10))
    assert other.changed_since(first) == {key(1), key(2)}


@pytest.mark.parametrize("doubled", [[1, 2, 1], [3, 3], [1, 3, 3], [2, 1, 2]])
def test_a_peer_that_comes_twice_spoils_the_dump(doubled: list[int]) -> None:
    """A peer that appears twice, known or new, makes no dump; the next one is compared with the last that was good."""
    parser = DumpParser(FAMILY)
    first = read(parser, recorded({1: PEER, 2: PEER}))
    peers = [nest(0, peer_attrs(number)) for number in doubled]
    with pytest.raises(MalformedDump):
        read(parser, device(device_attrs(), *peers) + done())
    assert set(read(parser, recorded({1: PEER, 2: PEER})).changed_since(first)) == set()


def test_a_keepalive_is_a_change_and_an_endpoint_alone_is_none() -> None:
    """A peer whose keepalive has changed is named; one whose endpoint has is not, unless something else has too."""
    parser, was = DumpParser(FAMILY), attr(4, socket_address("192.0.2.1", 1))
    moved = attr(4, socket_address("192.0.2.2", 1))
    first = [peer_attrs(1, endpoint=was), peer_attrs(2, endpoint=was), peer_attrs(3, endpoint=was)]
    second = [
        peer_attrs(1, endpoint=moved),
        peer_attrs(2, keepalive=attr(5, struct.pack("=H", 26))),
        peer_attrs(3, endpoint=moved, rx=attr(7, struct.pack("=Q", 7))),
    ]
    before, after = (
        read(parser, device(device_attrs(), *(nest(0, each) for each in peers)) + done()) for peers in (first, second)
    )
    assert reported(after, before) == {key(2), key(3)}
    assert replace(after, compared=None).changed_since(before) == {key(2), key(3)}


def test_fallback_compares_content() -> None:
    """Dumps of a reader that does not compare are compared by content."""
    peer = PeerState(key(1), frozenset(), 1, 2, 3)
    first = Dump(4, bytes(32), 1, {key(1): peer, key(2): peer})
    second = replace(first, peers={key(1): structs.replace(peer), key(2): structs.replace(peer, rx_bytes=9)})
    assert second.changed_since(first) == {key(2)}
    assert replace(first, peers={}).changed_since(first) == {key(1), key(2)}


def test_the_hash_is_siphash_1_3() -> None:
    """SipHash-1-3 of 32 bytes, as a second, slow writing of it has it; another secret gives another place."""
    secret = (0x0706050403020100, 0x0F0E0D0C0B0A0908)
    for data in (bytes(32), bytes(range(32)), b"\xff" * 32):
        assert lib.wga_key_hash(secret, data) == sip13(secret, data)
    assert lib.wga_key_hash((1, 2), bytes(32)) != lib.wga_key_hash((1, 3), bytes(32))


def sip13(secret: tuple[int, int], data: bytes) -> int:
    """After J.-P. Aumasson and D. J. Bernstein, "SipHash: a fast short-input PRF" (2012), with 1 and 3 rounds."""
    mask = 2**64 - 1
    names = (b"somepseu", b"dorandom", b"lygenera", b"tedbytes")
    v = [int.from_bytes(name, "big") ^ secret[n % 2] for n, name in enumerate(names)]

    def left(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & mask

    def round_() -> None:
        v[0] = (v[0] + v[1]) & mask
        v[1] = left(v[1], 13) ^ v[0]
        v[0] = left(v[0], 32)
        v[2] = (v[2] + v[3]) & mask
        v[3] = left(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & mask
        v[3] = left(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & mask
        v[1] = left(v[1], 17) ^ v[2]
        v[2] = left(v[2], 32)

    words = [*struct.unpack("=4Q", data), len(data) << 56]
    for word in words:
        v[3] ^= word
        round_()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        round_()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_too_little_room_is_refused() -> None:
    """What has too few slots, or no power of two, is not filled; nothing is written past the room there is."""
    dumps = [ffi.new("struct wga_dump *") for _ in range(2)]
    indexes = [ffi.new("struct wga_peer_index *") for _ in range(2)]
    peers = ffi.new("struct wga_peer[]", 2)
    dumps[1].peers, dumps[1].peer_count = peers, 2
    peers[1].public_key = bytes(range(32))
    found, slots = ffi.new("struct wga_key[]", 2), [ffi.new("uint32_t[]", 8) for _ in indexes]
    for at in range(2):
        indexes[at].slots = slots[at]
    for size in (0, 2, 3, 5):
        indexes[1].size = size
        assert lib.wga_peer_index_fill(indexes[1], dumps[1]) == -22
    indexes[0].size, indexes[1].size = 1, 4
    assert [lib.wga_peer_index_fill(indexes[at], dumps[at]) for at in range(2)] == [0, 0]
    assert lib.wga_dump_compare(dumps[0], indexes[0], dumps[1], indexes[1], found, 1) == -28
    assert lib.wga_dump_compare(dumps[0], indexes[0], dumps[1], indexes[1], found, 2) == 2
