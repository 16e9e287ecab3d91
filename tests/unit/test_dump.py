"""The dump parser against hand-built netlink messages: linux/netlink.h, linux/genetlink.h, linux/wireguard.h."""

from __future__ import annotations

import struct
from errno import EINVAL, ENODEV, ENOSPC
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance._native import ffi, lib
from appliance.domain.errors import MalformedDump, TunnelError
from appliance.network.netlink.dump import DumpCapacityExceeded, DumpWasInterrupted
from appliance.network.wireguard.parse import INITIAL_CAPACITY, DumpParser
from appliance.network.wireguard.peer_table import TableCapacity
from appliance.network.wireguard.tunnel import Dump, PeerState, Prefix, SocketAddress
from tests.support.unit.dump_messages import (
    DEVICE_PRIVATE_KEY,
    DEVICE_PUBLIC_KEY,
    FAMILY,
    NLM_F_DUMP_INTR,
    NLM_F_MULTI,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSG_NOOP,
    PORT,
    PRESHARED_KEY,
    SEQ,
    attr,
    continuation,
    device,
    device_attrs,
    done,
    key,
    message,
    nest,
    peer,
    peer_attrs,
    socket_address,
)


def state(number: int, *allowed_ips: str) -> PeerState:
    prefixes = frozenset(Prefix(n.network_address.packed, n.prefixlen) for n in map(ip_network, allowed_ips))
    endpoint = SocketAddress(ip_address("2001:db8::9").packed, 1 + number % 65535)
    handshake_ns = (1_700_000_000 + number) * 10**9 + 5
    return PeerState(key(number), prefixes, 1000 + number, 2000 + number, handshake_ns, endpoint, 25)


def begun(port: int = PORT, room: TableCapacity = INITIAL_CAPACITY) -> DumpParser:
    parser = DumpParser(FAMILY, room)
    parser.begin(SEQ, port)
    return parser


def read(*buffers: bytes) -> Dump:
    parser = begun()
    finished = [parser.feed(buffer, len(buffer)) for buffer in buffers]
    assert finished == [False] * (len(buffers) - 1) + [True]
    return parser.result()


def peers_of(*buffers: bytes) -> dict[bytes, PeerState]:
    return dict(read(*buffers).peers)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (attr(4, socket_address("192.0.2.1", 65535)), SocketAddress(bytes([192, 0, 2, 1]), 65535)),
        (attr(4, socket_address("2001:db8::1", 1)), SocketAddress(ip_address("2001:db8::1").packed, 1)),
        (attr(4, socket_address("fe80::1", 2, 7)), SocketAddress(ip_address("fe80::1").packed, 2, 7)),
        (attr(4, socket_address("192.0.2.1", 0)), None),
        (b"", None),
    ],
)
def test_where_a_peer_was_seen(written: bytes, expected: SocketAddress | None) -> None:
    """Of an endpoint are read address, port and interface; a peer may have none, and no keepalive."""
    found = read(device(device_attrs(), nest(0, peer_attrs(endpoint=written, keepalive=b""))) + done())
    assert (found.peers[key(1)].endpoint, found.peers[key(1)].keepalive_s) == (expected, 0)


def by_key(*states: PeerState) -> dict[bytes, PeerState]:
    return {s.public_key: s for s in states}


def test_a_device_without_peers() -> None:
    """The device's own figures come through; with no peers there are none."""
    assert read(device(device_attrs()), done()) == Dump(9, DEVICE_PUBLIC_KEY, 51820, {})


def test_a_device_without_a_key() -> None:
    """A device that has no private key yet reports a public key of zeros."""
    assert read(device(device_attrs(private_key=b"", public_key=b"")), done()).public_key == bytes(32)


def test_peers_with_their_figures() -> None:
    """Each peer has its own counters, handshake and allowed-ips of both families, or none."""
    found = peers_of(device(device_attrs(), peer(1, "10.0.0.2/32", "fd00::2/128"), peer(2), peer(3, "::/0")), done())
    assert found == by_key(state(1, "10.0.0.2/32", "fd00::2/128"), state(2), state(3, "::/0"))


def test_counters_are_unsigned_64_bit_integers() -> None:
    """Counters are unsigned 64 bits, and rx is not tx."""
    attrs = peer_attrs(rx=attr(7, b"\xff" * 8), tx=attr(8, struct.pack("=Q", (1 << 64) - 2)))
    (found,) = peers_of(device(device_attrs(), nest(0, attrs)), done()).values()
    assert (found.rx_bytes, found.tx_bytes) == ((1 << 64) - 1, (1 << 64) - 2)


@pytest.mark.parametrize("split", range(6))
def test_a_peer_in_two_messages(split: int) -> None:
    """Wherever the kernel cuts a peer's allowed-ips, the peer comes out whole, with its counters."""
    ips = [f"10.0.0.{n}/32" for n in range(5)]
    first = device(device_attrs(), peer(1, "::1/128"), peer(2, *ips[:split]))
    second = device(b"", continuation(2, *ips[split:]), peer(3, "::3/128"))
    expected = by_key(state(1, "::1/128"), state(2, *ips), state(3, "::3/128"))
    assert peers_of(first, second, done()) == expected
    assert peers_of(first + second + done()) == expected


def test_a_first_peer_in_three_messages() -> None:
    """While the first peer is continued the kernel repeats the device's attributes; one may bring nothing."""
    messages = (
        device(device_attrs(), peer(1, "10.0.0.1/32")),
        device(device_attrs(), continuation(1, "10.0.0.2/32")),
        device(device_attrs(), nest(0, attr(1, key(1)))),
    )
    assert read(*messages, done()) == Dump(9, DEVICE_PUBLIC_KEY, 51820, by_key(state(1, "10.0.0.1/32", "10.0.0.2/32")))


def test_unknown_attributes_are_skipped_at_every_level() -> None:
    """A newer kernel's attributes are passed over at every level, and so is the nested bit's absence."""
    unknown = attr(99, b"news") + attr(0, b"pad!")
    ip = attr(0, attr(3, b"\x20") + unknown + attr(1, struct.pack("=H", 2)) + attr(2, b"\x0a\0\0\1") + attr(4, b"flag"))
    a_peer = attr(0, peer_attrs(1, allowed_ips=b"") + unknown + attr(9, ip))
    found = message(FAMILY, struct.pack("=BBH", 0, 2, 0) + unknown + device_attrs() + attr(8, a_peer) + unknown)
    assert peers_of(found, done()) == by_key(state(1, "10.0.0.1/32"))


def test_a_message_without_final_padding() -> None:
    """The last attribute of a set may end without its padding."""
    payload = struct.pack("=BBH", 0, 1, 0) + device_attrs(listen_port=b"") + attr(6, struct.pack("=H", 51820))[:-2]
    assert read(message(FAMILY, payload) + bytes(2) + done()).listen_port == 51820


WHOLE = (
    device(device_attrs(), peer(1, "10.0.0.1/32", "fd00::1/128"), peer(2, "10.0.0.2/32"))
    + device(b"", continuation(2, "fd00::2/128"), peer(3, "0.0.0.0/0"))
    + done()
)


def test_truncation_at_every_byte() -> None:
    """A dump cut short anywhere is unfinished or malformed, and never taken for a whole one."""
    for cut in range(len(WHOLE)):
        parser = begun()
        try:
            assert parser.feed(WHOLE[:cut], cut) is False
        except MalformedDump:
            pass
        else:
            with pytest.raises(RuntimeError):
                parser.result()


@pytest.mark.parametrize("value", [0x00, 0x01, 0x03, 0x7F, 0xFF])
def test_one_wrong_byte_gives_a_dump_or_a_parser_error(value: int) -> None:
    """One wrong byte gives a dump or one of the parser's errors."""
    for at in range(len(WHOLE)):
        changed = bytearray(WHOLE)
        changed[at] = value
        assert outcome(bytes(changed)) in OUTCOMES


OUTCOMES = {"whole", "unfinished", "MalformedDump", "DumpWasInterrupted", "DumpCapacityExceeded", "OSError"}


def outcome(buffer: bytes) -> str:
    parser = begun(room=TableCapacity(3, 4))
    try:
        if not parser.feed(buffer, len(buffer)):
            return "unfinished"
        parser.result()
    except (TunnelError, OSError) as error:
        return type(error).__name__ if isinstance(error, TunnelError) else "OSError"
    return "whole"


@given(st.binary(max_size=400))
def test_random_bytes_give_a_dump_or_a_parser_error(noise: bytes) -> None:
    """Whatever the bytes, the parser answers with a dump or an error of its own."""
    assert outcome(noise) in OUTCOMES


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_where_peers_belong(noise: bytes, inside_a_peer: bool) -> None:
    """The same holds when the noise comes deep inside a well-formed message."""
    noise = nest(0, peer_attrs(1) + noise) if inside_a_peer else noise
    assert outcome(device(device_attrs(), noise) + done()) in OUTCOMES


@pytest.mark.parametrize(
    "buffer",
    [
        device(device_attrs(), flags=NLM_F_MULTI | NLM_F_DUMP_INTR) + done(),
        device(device_attrs()) + done(flags=NLM_F_MULTI | NLM_F_DUMP_INTR),
        device(device_attrs()) + device(b"", continuation(7, "::/0"), flags=NLM_F_DUMP_INTR) + done(),
    ],
    ids=["device", "done", "with content that has lost its place"],
)
def test_an_interrupted_dump_is_refused_before_its_content_is_read(buffer: bytes) -> None:
    """NLM_F_DUMP_INTR on any message spoils the dump, before its content is looked at."""
    with pytest.raises(DumpWasInterrupted):
        read(buffer)


@pytest.mark.parametrize("error", [ENODEV, ENOSPC, EINVAL])
@pytest.mark.parametrize("kind", [NLMSG_ERROR, NLMSG_DONE])
def test_the_kernels_refusal(kind: int, error: int) -> None:
    """The kernel's errno is passed on as it is, and not mistaken for one of the parser's own."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is matched, below
        read(message(kind, struct.pack("=i", -error) + bytes(16)))
    assert caught.value.errno == error


def test_messages_that_say_nothing() -> None:
    """No-ops, acknowledgements and answers to other requests are passed over."""
    others = (
        message(NLMSG_NOOP, b"")
        + message(NLMSG_ERROR, bytes(20))
        + device(device_attrs(), peer(5), seq=SEQ - 1)
        + device(device_attrs(), peer(6), port=PORT + 1)
        + message(NLMSG_DONE, bytes(4), seq=SEQ - 1)
    )
    assert peers_of(others + device(device_attrs(), peer(1)), others, done()) == by_key(state(1))


def test_port_id_0_accepts_any_answer() -> None:
    """Port id 0 accepts an answer to any."""
    parser = begun(port=0)
    buffer = device(device_attrs(), port=1) + done()
    assert parser.feed(buffer, len(buffer))


def test_only_the_length_given_is_read() -> None:
    """What lies in the buffer past the bytes received is left over from earlier and not looked at."""
    parser = begun()
    buffer = bytearray(device(device_attrs(), peer(1)) + b"\xff" * 500)
    assert parser.feed(memoryview(buffer), len(buffer) - 500) is False
    buffer[: len(done())] = done()
    assert parser.feed(buffer, len(done())) is True
    buffer.clear()  # would raise while the parser still held the buffer
    assert dict(parser.result().peers) == by_key(state(1))
    for length in (-1, 5):
        with pytest.raises(ValueError, match="length"):
            parser.feed(b"1234", length)


def test_room_grows_until_the_dump_fits() -> None:
    """Out of room, the parser makes more and says so: asked again often enough, it has the whole dump."""
    ips = [f"10.0.0.{n}/32" for n in range(9)]
    buffer = device(device_attrs(), *(peer(n) for n in range(10)), peer(10, *ips)) + done()
    parser = DumpParser(FAMILY, TableCapacity(1, 1))
    raised = 0
    for seq in range(20):
        parser.begin(seq, 0)
        again = buffer.replace(struct.pack("=II", SEQ, PORT), struct.pack("=II", seq, PORT))
        try:
            assert parser.feed(again, len(again))
        except DumpCapacityExceeded:
            raised += 1
    assert raised == 8  # 1 to 16 of both
    assert dict(parser.result().peers) == by_key(*(state(n) for n in range(10)), state(10, *ips))


@pytest.mark.parametrize("most", [TableCapacity(2, 8), TableCapacity(4, 2)], ids=["peers", "allowed-ips"])
def test_room_has_a_bound(most: TableCapacity) -> None:
    """A device past the bound is an error that asking again would not cure."""
    buffer = device(device_attrs(), peer(1, "10.0.0.1/32"), peer(2, "10.0.0.2/32"), peer(3, "10.0.0.3/32"))
    parser = DumpParser(FAMILY, TableCapacity(2, 2), most)
    parser.begin(SEQ, PORT)
    with pytest.raises(TunnelError, match="holds more than") as caught:
        parser.feed(buffer, len(buffer))
    assert not isinstance(caught.value, DumpCapacityExceeded)


def test_calls_out_of_turn_are_refused() -> None:
    """Feeding with no dump begun, or past its end, and asking for a result too early, are the caller's mistakes."""
    parser = DumpParser(FAMILY)
    with pytest.raises(RuntimeError):
        parser.feed(WHOLE, len(WHOLE))
    parser.begin(SEQ, PORT)
    with pytest.raises(RuntimeError):
        parser.result()
    assert parser.feed(WHOLE, len(WHOLE))
    with pytest.raises(RuntimeError):
        parser.feed(WHOLE, len(WHOLE))
    parser.result()
    with pytest.raises(RuntimeError):
        parser.result()
    parser.begin(SEQ, PORT)
    with pytest.raises(MalformedDump):
        parser.feed(b"", 0)
    with pytest.raises(RuntimeError):
        parser.feed(WHOLE, len(WHOLE))


def test_secrets_are_not_copied() -> None:
    """The device's private key and the preshared keys stay in the caller's buffer."""
    dump, peers, allowed_ips = (
        ffi.new("struct wga_dump *"),
        ffi.new("struct wga_peer[]", 4),
        ffi.new("struct wga_allowed_ip[]", 8),
    )
    dump.peers, dump.peer_capacity, dump.allowed_ips, dump.allowed_ip_capacity = peers, 4, allowed_ips, 8
    lib.wga_dump_begin(dump, FAMILY, SEQ, PORT)
    with ffi.from_buffer("uint8_t[]", WHOLE) as data:
        assert lib.wga_dump_feed(dump, data, len(WHOLE)) == 1
    held = bytes(ffi.buffer(dump)) + bytes(ffi.buffer(peers)) + bytes(ffi.buffer(allowed_ips))
    assert DEVICE_PUBLIC_KEY in held
    assert DEVICE_PRIVATE_KEY not in held
    assert PRESHARED_KEY not in held
