"""The cross-platform configuration protocol: requests as text, answers into dumps, in C as a plain parser says."""

from __future__ import annotations

import socket
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from appliance.domain.errors import MalformedDump, TunnelError
from appliance.network.wireguard import keys
from appliance.network.wireguard.peer_table import TableCapacity
from appliance.network.wireguard.tunnel import (
    DeviceChange,
    Dump,
    Peer,
    PeerChange,
    PeerState,
    Prefix,
    PutPeer,
    RemovePeer,
    SocketAddress,
)
from appliance.network.wireguard.uapi import device_request, peers_request
from appliance.network.wireguard.uapi_answer import BUFFER_SIZE, AnswerParser
from tests.support.unit.uapi_reference import reference

KEY, OTHER, PRIVATE = b"\x11" * 32, b"\x22" * 32, b"\x33" * 32
LINK_LOCAL = bytes.fromhex("fe800000000000000000000000000001")
V4, V6 = Prefix(bytes([10, 9, 0, 2]), 32), Prefix(bytes([0xFD, *[0] * 14, 2]), 128)

if TYPE_CHECKING:
    from collections.abc import Iterable

IFINDEX = 4

DEVICE = f"private_key={PRIVATE.hex()}\nlisten_port=51820\nfwmark=0\n"
# As wireguard-go 0.0.20220316 writes it.
PEER = (
    f"public_key={KEY.hex()}\npreshared_key={'00' * 32}\nprotocol_version=1\nendpoint=[2001:db8::1]:4711\n"
    "last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=123456789\ntx_bytes=92\nrx_bytes=148\n"
    "persistent_keepalive_interval=0\nallowed_ip=10.9.0.2/32\nallowed_ip=fd00::2/128\n"
)
QUIET = PEER.replace(KEY.hex(), OTHER.hex()).replace("1700000000", "0").replace("123456789", "0")
QUIET = QUIET.replace("=92", "=0").replace("=148", "=0").partition("allowed_ip")[0]
END = "errno=0\n\n"

FROM = SocketAddress(bytes.fromhex("20010db8000000000000000000000001"), 4711)
STATE = PeerState(KEY, frozenset({V4, V6}), 148, 92, 1_700_000_000_123_456_789, FROM)
QUIET_STATE = PeerState(OTHER, frozenset(), 0, 0, 0, FROM)


def pieces(answer: bytes, size: int) -> Iterable[bytes]:
    return (answer[at : at + size] for at in range(0, len(answer), size))


def fed(parser: AnswerParser, received: Iterable[bytes]) -> bool:
    """What recv_into() would do with these pieces; whether they were a whole answer, and nothing more."""
    parser.begin()
    whole = False
    for piece in received:
        if whole:
            return False
        parser.room()[: len(piece)] = piece
        whole = parser.feed(len(piece))
    return whole


def parse(answer: bytes, parser: AnswerParser | None = None, size: int = BUFFER_SIZE) -> Dump | int:
    """The dump of a whole answer, or the device's errno. Raises MalformedDump, also for less than one, or more."""
    parser = parser or AnswerParser()
    if not fed(parser, pieces(answer, size)):
        raise MalformedDump("not one whole answer")
    return parser.device_error or parser.dump(IFINDEX)


def test_peers_are_requested_in_order_with_their_allowed_ips() -> None:
    """Changes in order; a fresh peer is removed first; allowed-ips replace what was there."""
    changes: list[PeerChange] = [
        PutPeer(Peer(KEY, frozenset({V6, V4})), fresh=True),
        RemovePeer(OTHER),
        PutPeer(Peer(OTHER, frozenset())),
    ]
    assert peers_request(changes).decode() == (
        "set=1\n"
        f"public_key={KEY.hex()}\nremove=true\n"
        f"public_key={KEY.hex()}\nreplace_allowed_ips=true\nallowed_ip=10.9.0.2/32\nallowed_ip=fd00::2/128\n"
        f"public_key={OTHER.hex()}\nremove=true\n"
        f"public_key={OTHER.hex()}\nreplace_allowed_ips=true\n\n"
    )


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (SocketAddress(bytes([192, 0, 2, 1]), 65535), "192.0.2.1:65535"),
        (SocketAddress(LINK_LOCAL, 2, 7), "[fe80::1%7]:2"),
        (SocketAddress(LINK_LOCAL, 2), "[fe80::1]:2"),
    ],
)
def test_endpoint_and_keepalive_are_requested(endpoint: SocketAddress, text: str) -> None:
    """An endpoint is written as it is read, and a keepalive of 0 is one to set."""
    put = PutPeer(Peer(KEY, frozenset({V4})), endpoint=endpoint, keepalive_s=0)
    assert peers_request([put]).decode() == (
        f"set=1\npublic_key={KEY.hex()}\nendpoint={text}\npersistent_keepalive_interval=0\n"
        "replace_allowed_ips=true\nallowed_ip=10.9.0.2/32\n\n"
    )
    dump = parse(PEER.replace("[2001:db8::1]:4711", text).encode() + END.encode())
    assert isinstance(dump, Dump)
    assert dump.peers[KEY].endpoint == endpoint


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (DeviceChange(), "set=1\n\n"),
        (DeviceChange(listen_port=0), "set=1\nlisten_port=0\n\n"),
        (DeviceChange(PRIVATE, 51820), f"set=1\nprivate_key={PRIVATE.hex()}\nlisten_port=51820\n\n"),
    ],
)
def test_only_device_changes_are_sent(change: DeviceChange, expected: str) -> None:
    """Only what changes is sent."""
    assert device_request(change).decode() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (END, Dump(4, bytes(32), 0, {})),
        (DEVICE + END, Dump(4, keys.public_key(PRIVATE), 51820, {})),
        (DEVICE + PEER + END, Dump(4, keys.public_key(PRIVATE), 51820, {KEY: STATE})),
        (QUIET + PEER + END, Dump(4, bytes(32), 0, {OTHER: QUIET_STATE, KEY: STATE})),
        (PEER + "a_key_of_tomorrow=x=y\n" + END, Dump(4, bytes(32), 0, {KEY: STATE})),
    ],
)
def test_a_whole_answer_becomes_a_dump(text: str, expected: Dump) -> None:
    """Whole answers become dumps; of the private key only its public one is kept; unknown keys are skipped."""
    assert parse(text.encode()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1:65535", SocketAddress(bytes([192, 0, 2, 1]), 65535)),
        ("[::ffff:192.0.2.1]:1", SocketAddress(bytes([192, 0, 2, 1]), 1)),
        ("[fe80::1]:2", SocketAddress(LINK_LOCAL, 2)),
        ("[fe80::1%7]:2", SocketAddress(LINK_LOCAL, 2, 7)),
        ("[fe80::1%lo]:2", SocketAddress(LINK_LOCAL, 2, socket.if_nametoindex("lo"))),
        ("[fe80::1%none0]:2", None),
        ("[fe80::1%0]:2", None),
        ("[fe80::1%interface-of-16c]:2", None),
        ("192.0.2.1:0", None),
    ],
)
def test_where_a_peer_was_seen(text: str, expected: SocketAddress | None) -> None:
    """An endpoint has an address, a port and perhaps an interface, by name or number; an unknown one makes it none."""
    dump = parse(PEER.replace("[2001:db8::1]:4711", text).replace("interval=0", "interval=25").encode() + END.encode())
    assert isinstance(dump, Dump)
    assert dump.peers[KEY] == structs.replace(STATE, endpoint=expected, keepalive_s=25)


@pytest.mark.parametrize(
    "text",
    ["", ":", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4%lo:1", "[1.2.3.4]:1", "::1:1", "[::1:1", "[::1]1",
     "[::1]", "[]:1", "[%lo]:1", "[::1]:x", "[::1]:1\nendpoint=[::1]:1", "[::1\0]:1", "host:1",
     f"[{'0' * 46}::1]:1"],
)  # fmt: skip
def test_a_malformed_endpoint_is_refused(text: str) -> None:
    """What is no address and port is refused, by the plain parser too."""
    answer = (PEER.replace("[2001:db8::1]:4711", text) + END).encode()
    with pytest.raises(MalformedDump):
        same_as_the_reference(answer)


def test_private_key_is_not_kept() -> None:
    """Nothing in a dump holds the private key."""
    dump = parse((DEVICE + PEER + END).encode())
    assert repr(PRIVATE) not in repr(dump)
    assert PRIVATE.hex() not in repr(dump)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "errno=0\n",
        DEVICE,
        END + END,
        END + "x",
        "private_key\n" + END,
        "\xe9=1\n" + END,
        DEVICE.replace("33" * 32, "33" * 31) + END,
        DEVICE.replace("33" * 32, "zz" * 32) + END,
        DEVICE.replace("33" * 32, "33" * 31 + "  ") + END,
        DEVICE.replace("51820", "65536") + END,
        DEVICE.replace("51820", "") + END,
        DEVICE.replace("51820", "-1") + END,
        PEER + PEER + END,
        "a=1\n\n",
        "errno=\n\n",
        "errno=-\n\n",
        "errno=--1\n\n",
        "errno=99999999\n\n",
        "errno=0\nerrno=0\n\n",
        "errno=22\n" + DEVICE + "\n",
        "\n",
        "\n\n",
        DEVICE + DEVICE + END,
        PEER.replace("rx_bytes=148\n", "rx_bytes=148\nrx_bytes=148\n") + END,
        PEER.replace(KEY.hex(), KEY.hex()[1:]) + END,
        PEER.replace("10.9.0.2/32", "fd00::2") + END,
        PEER.replace("10.9.0.2/32", "fd00::2/") + END,
        PEER.replace("10.9.0.2/32", "10.9.0.2\0/32") + END,
        PEER.replace("10.9.0.2/32", "0" * 100 + "/32") + END,
        PEER.replace("10.9.0.2/32", "10.9.0.2/" + "0" * 21) + END,
        PEER.replace("rx_bytes=148\n", "") + END,
        PEER.replace("tx_bytes=92\n", "") + END,
        PEER.replace("last_handshake_time_sec=1700000000\n", "") + END,
        PEER.replace("last_handshake_time_nsec=123456789\n", "") + END,
        PEER.replace("=148", "=-148") + END,
        PEER.replace("=148", "=1e3") + END,
        PEER.replace("=148", f"={2**64}") + END,
        PEER.replace("=148", "=" + "9" * 5000) + END,
        PEER.replace("=123456789", "=1000000000") + END,
        PEER.replace("=1700000000", f"={2**63 // 10**9}") + END,
        PEER.replace("10.9.0.2/32", "10.9.0.2/33") + END,
        PEER.replace("10.9.0.2/32", "10.9.0.2") + END,
        PEER.replace("10.9.0.2/32", "10.9.0/24") + END,
        PEER.replace("fd00::2/128", "fd00::2/129") + END,
        PEER.replace("fd00::2/128", "fd00::g/128") + END,
        PEER.replace("fd00::2/128", "\0/0") + END,
    ],
)
def test_a_malformed_answer_is_one_error(text: str) -> None:
    """What the protocol does not allow is one error, and never a dump with something missing."""
    with pytest.raises(MalformedDump):
        parse(text.encode("latin-1"))
    with pytest.raises(MalformedDump):
        reference(text.encode("latin-1"), IFINDEX)


def test_a_truncated_answer_is_malformed() -> None:
    """An answer cut off anywhere is malformed."""
    whole = (DEVICE + PEER + QUIET + END).encode()
    for length in range(len(whole)):
        with pytest.raises(MalformedDump):
            parse(whole[:length])


LINES = [*(DEVICE + PEER + QUIET + END).splitlines(), "", "=", "x", "public_key=", "rx_bytes=0", "errno=-2", "errno=2"]
NUMBERS = st.sampled_from([0, 1, 148, 2**32, 2**63, 2**64 - 1])
ENDPOINTS = st.sampled_from(
    ["[::1]:1", "192.0.2.1:65535", "[fe80::1%lo]:2", "[fe80::1%7]:3", "[fe80::1%none0]:4", "[::ffff:10.0.0.2]:0"]
)
ADDRESSES = st.sampled_from(["10.0.0.2/32", "0.0.0.0/0", "fd00::2/128", "::/0", "::ffff:10.0.0.2/96"])


def same_as_the_reference(answer: bytes, parser: AnswerParser | None = None, size: int = BUFFER_SIZE) -> Dump | int:
    """What C makes of an answer, if it is what the plain parser makes of it; MalformedDump if it is that to both."""
    try:
        expected = reference(answer, IFINDEX)
    except MalformedDump:
        with pytest.raises(MalformedDump):
            parse(answer, parser, size)
        raise
    found = parse(answer, parser, size)
    assert found == expected
    return found


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Whole answers of some peers, in any order."""
    text = draw(st.sampled_from(["", DEVICE, f"private_key={PRIVATE.hex()}\n", "listen_port=0\n"]))
    for number in draw(st.lists(st.integers(0, 255), unique=True, max_size=6)):
        lines = [f"rx_bytes={draw(NUMBERS)}", f"tx_bytes={draw(NUMBERS)}", "preshared_key=0"]
        lines += [f"endpoint={address}" for address in draw(st.lists(ENDPOINTS, max_size=1))]
        lines += [f"persistent_keepalive_interval={x}" for x in draw(st.lists(st.integers(0, 65535), max_size=1))]
        lines += [f"last_handshake_time_sec={draw(st.integers(0, 2**63 // 10**9 - 1))}"]
        lines += [f"last_handshake_time_nsec={draw(st.integers(0, 10**9 - 1))}"]
        lines += [f"allowed_ip={address}" for address in draw(st.lists(ADDRESSES, max_size=3))]
        text += f"public_key={bytes([number] * 32).hex()}\n" + "".join(f"{x}\n" for x in draw(st.permutations(lines)))
    return (text + draw(st.sampled_from([END, END, END, "errno=-22\n\n"]))).encode()


@settings(deadline=None)
@given(answers(), st.integers(1, 300))
def test_a_whole_answer_is_what_the_plain_parser_says(answer: bytes, size: int) -> None:
    """Any whole answer becomes the plain parser's dump, in pieces of any size, and from tables that must grow."""
    same_as_the_reference(answer, AnswerParser(TableCapacity(peers=1, allowed_ips=1)), size)


@settings(deadline=None)
@given(answers(), st.integers(1, 300), st.data())
def test_a_damaged_answer_is_what_the_plain_parser_says(answer: bytes, size: int, data: st.DataObject) -> None:
    """An answer with bytes replaced, removed or repeated is the dump, the errno or the refusal of the plain parser."""
    damaged = bytearray(answer)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(damaged)))
        end = min(len(damaged), start + data.draw(st.integers(0, 20)))
        piece = bytes(damaged[start:end])
        other = st.binary(max_size=3) | st.sampled_from(
            [b"\n", b"=", b"0", b"9" * 20, b"-", b"/", b":", b"%", b"]", b"[", piece * 2]
        )
        damaged[start:end] = data.draw(other)
    try:
        same_as_the_reference(bytes(damaged), size=size)
    except MalformedDump:
        return


@settings(deadline=None)
@given(st.lists(st.sampled_from(LINES)))
def test_known_lines_in_any_order_are_what_the_plain_parser_says(lines: list[str]) -> None:
    """Known lines in any order are the plain parser's dump, its errno, or malformed to both."""
    try:
        same_as_the_reference(("\n".join(lines) + "\n\n").encode())
    except MalformedDump:
        return
    assert "" not in lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [("errno=-98\n\n", 98), ("errno=22\n\n", 22), (PEER.partition("tx_bytes")[0] + "errno=-5\n\n", 5)],
)
def test_the_errno_is_positive_whichever_sign_it_had(text: str, expected: int) -> None:
    """The errno is positive, whichever sign the device gave it; what was listed before it need not be whole."""
    assert parse(text.encode()) == expected


def test_the_port_is_the_one_the_device_reports() -> None:
    """The port as the device reports it; 0 while it does not, and then not that of the answer before."""
    parser = AnswerParser()
    for text, port in ((DEVICE + END, 51820), (END, 0)):
        assert fed(parser, [text.encode()])
        assert parser.listen_port == port


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PEER.replace("rx_bytes=148\n", "") + END, "malformed answer: a peer without rx_bytes"),
        (PEER.replace("=148", f"={2**64}") + END, "malformed answer: rx_bytes is not a whole number, or too large"),
        (PEER.replace("10.9.0.2/32", "x") + END, "malformed answer: allowed_ip is not an address and a prefix length"),
        (PEER + PEER + END, "malformed dump: a peer appears twice"),
        ("x" * BUFFER_SIZE, f"malformed answer: a line of more than {BUFFER_SIZE} bytes"),
    ],
)
def test_the_error_says_what_is_malformed(text: str, message: str) -> None:
    """The error names the line's key and what is wrong with it."""
    with pytest.raises(MalformedDump) as error:
        parse(text.encode())
    assert str(error.value) == message


def test_a_device_with_more_peers_than_the_largest_tables_is_refused() -> None:
    """What the largest tables do not hold is an error that says so, for peers and for allowed-ips."""
    for most in (TableCapacity(1, 8), TableCapacity(8, 1)):
        with pytest.raises(TunnelError, match=f"more than {most.peers} peers or {most.allowed_ips} allowed-ips"):
            parse((QUIET + PEER + END).encode(), AnswerParser(TableCapacity(1, 1), most))


def test_two_answers_are_compared() -> None:
    """A dump knows who was added, removed or changed since the one before, in whatever order the peers come."""
    parser = AnswerParser()
    both, moved = PEER + QUIET + END, QUIET + PEER.replace("=92", "=93") + END
    dumps = [parse(text.encode(), parser) for text in (both, QUIET + PEER + END, moved, QUIET + END)]
    assert all(isinstance(dump, Dump) for dump in dumps)
    first, same, changed, gone = (dump for dump in dumps if isinstance(dump, Dump))
    assert same.compared is not None
    assert set(same.changed_since(first)) == set()
    assert set(changed.changed_since(same)) == {KEY}
    assert set(gone.changed_since(changed)) == {KEY}
    assert set(first.changed_since(gone)) == {KEY}


def test_a_malformed_answer_leaves_the_dumps_before_and_after_it_alone() -> None:
    """A refused answer in between changes nothing in what the last dump is compared with."""
    parser = AnswerParser()
    first = parse((PEER + END).encode(), parser)
    with pytest.raises(MalformedDump):
        parse((QUIET + "rx_bytes=0\n" + END).encode(), parser)
    assert parse(b"errno=-2\n\n", parser) == 2
    second = parse((PEER + QUIET + END).encode(), parser)
    assert isinstance(first, Dump)
    assert isinstance(second, Dump)
    assert first.peers == {KEY: STATE}
    assert set(second.changed_since(first)) == {OTHER}


@pytest.mark.parametrize("answer", [DEVICE + PEER + END, DEVICE + PEER + "no line\n"])
def test_the_private_key_is_gone_once_the_answer_is_read(answer: str) -> None:
    """The parser itself keeps neither the answer nor the private key, also if the rest is malformed."""
    parser = AnswerParser()
    with suppress(MalformedDump):
        assert fed(parser, [answer.encode()])
    assert len(parser.room()) == 0
    assert bytes(parser._uapi.private_key) == bytes(32)


def test_a_dump_is_no_python_object_a_peer() -> None:
    """Parsed and compared, ten thousand peers are a few blocks of memory to Python."""
    answer = "".join(PEER.replace(KEY.hex(), number.to_bytes(32).hex()) for number in range(10_000)) + END
    parser, received = AnswerParser(), [*pieces(answer.encode(), BUFFER_SIZE // 2)]
    before = [fed(parser, received) and parser.dump(IFINDEX), fed(parser, received) and parser.dump(IFINDEX)]
    tracemalloc.start()
    try:
        assert fed(parser, received)
        dump = parser.dump(IFINDEX)
        blocks = sum(entry.count for entry in tracemalloc.take_snapshot().statistics("filename"))
    finally:
        tracemalloc.stop()
    assert len(dump.peers) == 10_000
    assert blocks < 1000
    assert before
