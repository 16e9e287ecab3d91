"""The dump parser against recordings of a real kernel, and against what `wg show` made of the same device."""

from __future__ import annotations

import base64
import struct
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from appliance.domain.errors import MalformedDump
from appliance.network.netlink.dump import DumpCapacityExceeded
from appliance.network.wireguard.parse import DumpParser
from appliance.network.wireguard.peer_table import TableCapacity
from appliance.network.wireguard.tunnel import Dump, Prefix, SocketAddress
from tests.support.unit.dump_messages import attr, message

GOLDEN = Path(__file__).parent / "golden"
FAMILY, SEQ = 21, 7
RX_BYTES, PEERS, ALLOWED_IPS = 7, 8, 9  # attribute types of linux/wireguard.h
RECORDINGS = {"empty": 7, "distinct": 7654321, "first": 7, "many": 7}  # and the interface's index in each


def recording(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((GOLDEN / name).glob("*.bin"))]


def replay(buffers: list[bytes], parser: DumpParser) -> Dump:
    while True:
        parser.begin(SEQ, 0)
        try:
            finished = [parser.feed(buffer, len(buffer)) for buffer in buffers]
        except DumpCapacityExceeded:
            continue
        assert finished == [False] * (len(buffers) - 1) + [True]
        return parser.result()


Figures = tuple[frozenset[Prefix], int, int, int, SocketAddress | None, int]


def wg_show(name: str) -> tuple[list[str], dict[bytes, Figures]]:
    """`wg show IF dump`: the device's line; (allowed-ips, handshake in seconds, rx, tx, endpoint, keepalive) by key."""
    device, *peers = (line.split("\t") for line in (GOLDEN / name / "wg-show-dump.tsv").read_text().splitlines())
    figures: dict[bytes, Figures] = {}
    for key, _psk, endpoint, allowed_ips, handshake, rx, tx, keepalive in peers:
        networks = [] if allowed_ips == "(none)" else map(ip_network, allowed_ips.split(","))
        prefixes = frozenset(Prefix(n.network_address.packed, n.prefixlen) for n in networks)
        seconds = 0 if keepalive == "off" else int(keepalive)
        figures[base64.b64decode(key)] = (prefixes, int(handshake), int(rx), int(tx), _seen_at(endpoint), seconds)
    return device, figures


def _seen_at(text: str) -> SocketAddress | None:
    if text == "(none)":
        return None
    host, _, port = text.rpartition(":")
    return SocketAddress(ip_address(host.strip("[]")).packed, int(port))


@pytest.mark.parametrize("name", RECORDINGS)
def test_what_wg_show_said(name: str) -> None:
    """Read from the recording, every figure is the one that the wg tool reported."""
    dump = replay(recording(name), DumpParser(FAMILY))
    (_private, public, port, _fwmark), figures = wg_show(name)
    assert dump.public_key == (bytes(32) if public == "(none)" else base64.b64decode(public))
    assert dump.listen_port == int(port)
    assert dump.ifindex == RECORDINGS[name]
    assert {
        key: (
            peer.allowed_ips,
            peer.last_handshake_ns // 10**9,
            peer.rx_bytes,
            peer.tx_bytes,
            peer.endpoint,
            peer.keepalive_s,
        )
        for key, peer in dump.peers.items()
    } == figures


def test_the_recordings_are_worth_replaying() -> None:
    """They hold what they were made for: continued peers, repeated device attributes, and peers with traffic."""
    continued = 0
    for buffer in recording("many"):
        continued += sum(RX_BYTES not in kinds for kinds in peers_attributes(buffer))
    assert continued > 0
    assert all(struct.pack("=HH", 9, 2) + b"wga0\0" in buffer for buffer in recording("first")[:2])
    _device, figures = wg_show("many")
    assert len([1 for _ips, handshake, rx, tx, *_ in figures.values() if handshake and rx and tx and rx != tx]) == 3


def peers_attributes(buffer: bytes) -> list[set[int]]:
    """The attribute types of each peer in a buffer: a plain reading, independent of the C one."""
    found = []
    for kind, payload in messages(buffer):
        if kind != FAMILY:
            continue
        for outer, peers in attributes(payload[4:]):
            if outer == 8:
                found += [{inner for inner, _ in attributes(peer)} for _, peer in attributes(peers)]
    return found


def messages(buffer: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(buffer):
        length, kind = struct.unpack_from("=IH", buffer, at)
        found.append((kind, buffer[at + 16 : at + length]))
        at += (length + 3) & ~3
    return found


def attributes(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found.append((kind & 0x3FFF, data[at + 4 : at + length]))
        at += (length + 3) & ~3
    return found


def test_every_field_is_told_apart() -> None:
    """Where no two fields have the same value, each one that is kept is the one the kernel put there, to the bit."""
    ((kind, payload), *_) = messages(recording("distinct")[0])
    assert kind == FAMILY
    device = dict(attributes(payload[4:]))
    peers = [dict(attributes(peer)) for _, peer in attributes(device[8])]
    values = [device[n] for n in (1, 3, 4, 6, 7)]
    for peer in peers:
        values += [peer[n] for n in (1, 2, 4, 5, 7, 8)] + [peer[6][:8], peer[6][8:]]
        values += [
            struct.pack("=BH", ip[3][0], len(ip[2])) + ip[2] for ip in map(dict, map(attributes, nests(peer[9])))
        ]
    assert len(set(values)) == len(values) == 5 + 3 * 8 + 6
    dump = replay(recording("distinct"), DumpParser(FAMILY))
    assert (dump.ifindex, dump.public_key, dump.listen_port) == (
        struct.unpack("=I", device[1])[0],
        device[4],
        struct.unpack("=H", device[6])[0],
    )
    assert list(dump.peers) == [peer[1] for peer in peers]
    for found, peer in zip(dump.peers.values(), peers, strict=True):
        seconds, nanoseconds = struct.unpack("=qq", peer[6])
        assert found.last_handshake_ns == seconds * 10**9 + nanoseconds
        assert (found.rx_bytes, found.tx_bytes) == struct.unpack("=QQ", peer[7] + peer[8])
        ips = [dict(attributes(ip)) for ip in nests(peer[9])]
        assert found.allowed_ips == {Prefix(ip[2], ip[3][0]) for ip in ips}


def nests(data: bytes) -> list[bytes]:
    return [payload for _, payload in attributes(data)]


@pytest.mark.parametrize("name", RECORDINGS)
def test_cut_short_at_every_byte(name: str) -> None:
    """What the kernel sent, cut short anywhere, is refused or not whole yet, and never a dump."""
    whole = b"".join(recording(name))
    parser = DumpParser(FAMILY, TableCapacity(512, 2048))
    for cut in range(len(whole)):
        parser.begin(SEQ, 0)
        try:
            assert parser.feed(whole, cut) is False
        except MalformedDump:
            continue
        with pytest.raises(RuntimeError, match="not finished"):
            parser.result()
    assert replay([whole], parser) == replay(recording(name), DumpParser(FAMILY))


@pytest.mark.parametrize("name", ["distinct", "first"])
def test_a_buffer_cut_short_at_every_byte(name: str) -> None:
    """A buffer that is cut off among whole ones: what comes of them is refused or not whole, and never a dump."""
    buffers = recording(name)
    parser = DumpParser(FAMILY, TableCapacity(512, 2048))
    for n, buffer in enumerate(buffers):
        for cut in range(len(buffer)):
            parser.begin(SEQ, 0)
            try:
                finished = [parser.feed(each, len(each)) for each in (*buffers[:n], buffer[:cut], *buffers[n + 1 :])]
            except MalformedDump:
                continue
            assert not any(finished)


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_newer_kernels_attributes_change_no_recording(name: str) -> None:
    """With attributes that nobody knows and padding put in at every level, a recording says the same."""
    buffers = []
    for buffer in recording(name):
        for kind, payload in messages(buffer):
            grown = payload[:4] + with_news(payload[4:], PEERS, ALLOWED_IPS) if kind == FAMILY else payload
            buffers.append(message(kind, grown, seq=SEQ))
    assert replay(buffers, DumpParser(FAMILY)) == replay(recording(name), DumpParser(FAMILY))


def with_news(data: bytes, *lists: int) -> bytes:
    """The attributes with news around each. `lists`: which of them holds a list of nests, and which does in those."""
    news = attr(0x3FFE, b"news!") + attr(0, b"")
    grown = news
    for kind, value in attributes(data):
        if lists and kind == lists[0]:
            value = b"".join(attr(0, with_news(each, *lists[1:])) for each in nests(value))
        grown += attr(kind, value) + news
    return grown


def test_buffers_of_any_division() -> None:
    """One buffer for the whole dump, or one a message, gives the same dump; so does a parser that starts cramped."""
    buffers = recording("many")
    expected = replay(buffers, DumpParser(FAMILY))
    whole = b"".join(buffers)
    assert replay([whole], DumpParser(FAMILY, TableCapacity(1, 1))) == expected
    one_each, at = [], 0
    while at < len(whole):
        (length,) = struct.unpack_from("=I", whole, at)
        one_each.append(whole[at : at + ((length + 3) & ~3)])
        at += (length + 3) & ~3
    assert replay(one_each, DumpParser(FAMILY)) == expected


def test_a_parser_is_used_again() -> None:
    """A parser carries nothing from one dump into the next."""
    parser = DumpParser(FAMILY)
    for name in ("many", "empty", "first", "many", "empty"):
        assert replay(recording(name), parser) == replay(recording(name), DumpParser(FAMILY))


def test_no_private_key_is_kept_here() -> None:
    """In the recordings the device's private key is overwritten."""
    for name in ("distinct", "first", "many"):
        kept = [
            value
            for buffer in recording(name)
            for kind, payload in messages(buffer)
            if kind == FAMILY
            for outer, value in attributes(payload[4:])
            if outer == 3
        ]
        assert kept
        assert set(kept) == {b"\xaa" * 32}
