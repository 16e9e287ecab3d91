"""The cross-platform configuration protocol: requests as text, answers into dumps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.errors import MalformedDump
from appliance.network.wireguard import keys
from appliance.network.wireguard.tunnel import (
    DeviceChange,
    Dump,
    Peer,
    PeerChange,
    PeerState,
    Prefix,
    PutPeer,
    RemovePeer,
)
from appliance.network.wireguard.uapi import device_request, parse_dump, parse_errno, parse_listen_port, peers_request

KEY, OTHER, PRIVATE = b"\x11" * 32, b"\x22" * 32, b"\x33" * 32
V4, V6 = Prefix(bytes([10, 9, 0, 2]), 32), Prefix(bytes([0xFD, *[0] * 14, 2]), 128)

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

STATE = PeerState(KEY, frozenset({V4, V6}), 148, 92, 1_700_000_000_123_456_789)
QUIET_STATE = PeerState(OTHER, frozenset(), 0, 0, 0)


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
    assert parse_dump(text.encode(), 4) == expected


def test_private_key_is_not_kept() -> None:
    """Nothing in a dump holds the private key."""
    dump = parse_dump((DEVICE + PEER + END).encode(), 4)
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
        parse_dump(text.encode("latin-1"), 4)


def test_a_truncated_answer_is_malformed() -> None:
    """An answer cut off anywhere is malformed."""
    whole = (DEVICE + PEER + QUIET + END).encode()
    for length in range(len(whole)):
        with pytest.raises(MalformedDump):
            parse_dump(whole[:length], 4)


@given(
    st.lists(st.sampled_from([*(DEVICE + PEER + QUIET + END).splitlines(), "", "=", "x", "public_key=", "rx_bytes=0"]))
)
def test_known_lines_in_any_order_are_a_dump_or_malformed(lines: list[str]) -> None:
    """Known lines in any order are a dump or malformed."""
    try:
        parse_dump(("\n".join(lines) + "\n\n").encode(), 4)
    except MalformedDump:
        pass
    else:
        assert "" not in lines


@pytest.mark.parametrize(
    ("text", "expected"), [(END, 0), ("errno=-98\n\n", 98), ("errno=22\n\n", 22), (DEVICE + PEER + END, 0)]
)
def test_the_errno_is_positive_whichever_sign_it_had(text: str, expected: int) -> None:
    """The errno is positive, whichever sign the device gave it."""
    assert parse_errno(text.encode()) == expected


@pytest.mark.parametrize("text", ["a=1\n\n", "errno=\n\n", "errno=--1\n\n", "errno=99999999\n\n", "errno=0\n"])
def test_an_answer_without_an_errno_is_malformed(text: str) -> None:
    """An answer without an errno is malformed, not a success."""
    with pytest.raises(MalformedDump):
        parse_errno(text.encode())


def test_the_port_is_the_one_the_device_reports() -> None:
    """The port as the device reports it; 0 while it does not."""
    assert parse_listen_port((DEVICE + END).encode()) == 51820
    assert parse_listen_port(END.encode()) == 0
