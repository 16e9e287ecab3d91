"""The dump parser against recordings of a real kernel, and against what `wg show` made of the same device."""

from __future__ import annotations

import base64
import struct
from ipaddress import ip_network
from pathlib import Path

import pytest

from appliance.wireguard.dump import DumpParser, OutOfRoom, Room
from appliance.wireguard.tunnel import Dump, Prefix

GOLDEN = Path(__file__).parent / "golden"
FAMILY, SEQ = 21, 7
RX_BYTES = 7


def recording(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((GOLDEN / name).glob("*.bin"))]


def replay(buffers: list[bytes], parser: DumpParser) -> Dump:
    while True:
        parser.begin(SEQ, 0)
        try:
            finished = [parser.feed(buffer, len(buffer)) for buffer in buffers]
        except OutOfRoom:
            continue
        assert finished == [False] * (len(buffers) - 1) + [True]
        return parser.result()


def wg_show(name: str) -> tuple[list[str], dict[bytes, tuple[frozenset[Prefix], int, int, int]]]:
    """`wg show IF dump`: the device's line, and (allowed-ips, handshake in seconds, rx, tx) by key."""
    device, *peers = (line.split("\t") for line in (GOLDEN / name / "wg-show-dump.tsv").read_text().splitlines())
    figures = {}
    for key, _psk, _endpoint, allowed_ips, handshake, rx, tx, _keepalive in peers:
        networks = [] if allowed_ips == "(none)" else map(ip_network, allowed_ips.split(","))
        prefixes = frozenset(Prefix(n.network_address.packed, n.prefixlen) for n in networks)
        figures[base64.b64decode(key)] = (prefixes, int(handshake), int(rx), int(tx))
    return device, figures


@pytest.mark.parametrize("name", ["empty", "first", "many"])
def test_what_wg_show_said(name: str) -> None:
    """Read from the recording, every figure is the one that the wg tool reported."""
    dump = replay(recording(name), DumpParser(FAMILY))
    (_private, public, port, _fwmark), figures = wg_show(name)
    assert dump.public_key == (bytes(32) if public == "(none)" else base64.b64decode(public))
    assert dump.listen_port == int(port)
    assert dump.ifindex == 7
    assert {
        key: (peer.allowed_ips, peer.last_handshake_ns // 10**9, peer.rx_bytes, peer.tx_bytes)
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
    assert len([1 for _ips, handshake, rx, tx in figures.values() if handshake and rx and tx and rx != tx]) == 3


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


def test_buffers_of_any_division() -> None:
    """One buffer for the whole dump, or one a message, gives the same dump; so does a parser that starts cramped."""
    buffers = recording("many")
    expected = replay(buffers, DumpParser(FAMILY))
    whole = b"".join(buffers)
    assert replay([whole], DumpParser(FAMILY, Room(1, 1))) == expected
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
    for name in ("first", "many"):
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
