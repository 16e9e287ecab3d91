"""WireGuard's netlink requests, byte for byte, and how they are spread over messages."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from appliance.network.netlink import constants
from appliance.network.netlink.codec import attribute, message
from appliance.network.wireguard.encode import (
    ALLOWED_IPS_PER_ENTRY,
    PEERS_LIMIT,
    device_body,
    interface,
    peer_entries,
    peers_body,
)
from appliance.network.wireguard.tunnel import DeviceChange, Peer, Prefix, PutPeer, RemovePeer, SocketAddress
from tests.support.unit.device_requests import entries

if TYPE_CHECKING:
    from appliance.network.wireguard.tunnel import PeerChange

KEY, OTHER = b"\x11" * 32, b"\x22" * 32
V4, V6 = Prefix(bytes([10, 9, 0, 2]), 32), Prefix(bytes([0xFD, *[0] * 14, 2]), 128)

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are written down in little-endian")


def bodies(*changes: PeerChange) -> list[bytes]:
    return [peers_body("wga0", message) for message in peer_entries(changes)]


def all_entries(*changes: PeerChange) -> list[tuple[bytes, int, list[Prefix]]]:
    return [entry for body in bodies(*changes) for entry in entries(body)]


REPLACE, REMOVE, UPDATE = (
    constants.WGPEER_F_REPLACE_ALLOWEDIPS,
    constants.WGPEER_F_REMOVE_ME,
    constants.WGPEER_F_UPDATE_ONLY,
)


@little_endian
def test_a_dump_request_is_encoded_byte_for_byte() -> None:
    """A dump request is a netlink header, a generic one and the interface's name, padded to four bytes."""
    made = message(
        0x1D, constants.NLM_F_DUMP, 7, constants.WG_CMD_GET_DEVICE, constants.WG_GENL_VERSION, interface("wga0")
    )
    assert made.hex(" ", 4) == "20000000 1d000103 07000000 00000000 00010000 09000200 77676130 00000000"


@little_endian
@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (SocketAddress(bytes([192, 0, 2, 1]), 4711), "14000400 02001267 c0000201 00000000 00000000"),
        (
            SocketAddress(bytes([0xFE, 0x80, *[0] * 13, 1]), 4711, 7),
            "20000400 0a001267 00000000 fe800000 00000000 00000000 00000001 07000000",
        ),
    ],
)
def test_endpoint_and_keepalive_are_encoded_byte_for_byte(endpoint: SocketAddress, expected: str) -> None:
    """An endpoint is a socket address; a keepalive of 0 is one to set; both go with the first of a peer's entries."""
    ips = frozenset(Prefix(bytes([10, 9, n // 256, n % 256]), 32) for n in range(ALLOWED_IPS_PER_ENTRY + 1))
    (body,) = bodies(PutPeer(Peer(KEY, ips), endpoint=endpoint, keepalive_s=0))
    both = bytes.fromhex(expected) + bytes.fromhex("06000500 00000000")
    assert body.count(both) == 1
    assert body.index(both) < body.index(KEY, body.index(KEY) + 1)


@little_endian
def test_a_peer_is_encoded_byte_for_byte() -> None:
    """One peer with one IPv4 allowed-ip, as the kernel reads it."""
    (body,) = bodies(PutPeer(Peer(KEY, frozenset({V4}))))
    peers = (
        "54000880"  # WGDEVICE_A_PEERS, nested
        "50000080"  # one entry
        "24000100" + KEY.hex() + "08000300 02000000"  # public key; flags: replace allowed-ips
        "20000980 1c000080"  # WGPEER_A_ALLOWEDIPS, one
        "06000100 02000000 08000200 0a090002 05000300 20000000"  # AF_INET, the address, /32
    )
    assert body == bytes.fromhex("09000200 77676130 00000000" + peers)


@little_endian
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (DeviceChange(), ""),
        (DeviceChange(private_key=KEY), "24000300" + KEY.hex()),
        (DeviceChange(listen_port=51820), "06000600 6cca0000"),
        (DeviceChange(KEY, 0), "24000300" + KEY.hex() + "06000600 00000000"),
    ],
)
def test_only_device_changes_are_encoded(change: DeviceChange, expected: str) -> None:
    """Only what changes is sent; port 0 is a value and not an absence."""
    assert device_body("wga0", change) == interface("wga0") + bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (RemovePeer(KEY), [(KEY, REMOVE, [])]),
        (PutPeer(Peer(KEY, frozenset())), [(KEY, REPLACE, [])]),
        (PutPeer(Peer(KEY, frozenset({V6, V4}))), [(KEY, REPLACE, [V4, V6])]),
        (PutPeer(Peer(KEY, frozenset({V4})), fresh=True), [(KEY, REMOVE, []), (KEY, REPLACE, [V4])]),
    ],
)
def test_each_change_becomes_its_entries(change: PeerChange, expected: list[tuple[bytes, int, list[Prefix]]]) -> None:
    """Each change as the entries it becomes: a fresh peer is removed and put in the same message."""
    (body,) = bodies(change)
    assert entries(body) == expected


def test_resent_entries_keep_their_peers() -> None:
    """Entries that were done already are sent without what would make their peers begin anew, or go."""
    changes = (PutPeer(Peer(KEY, frozenset({V4})), fresh=True), RemovePeer(OTHER), PutPeer(Peer(OTHER, frozenset())))
    (message,) = peer_entries(changes)
    assert [entry.public_key for entry in message] == [KEY, OTHER, OTHER]
    assert entries(peers_body("wga0", message, again=True)) == [(KEY, REPLACE, [V4]), (OTHER, REPLACE, [])]
    assert entries(peers_body("wga0", message[2:])) == [(OTHER, REPLACE, [])]
    assert entries(peers_body("wga0", [])) == []


def test_entries_stand_in_the_order_of_the_changes() -> None:
    """Entries stand in the order of the changes."""
    changes: list[PeerChange] = [
        PutPeer(Peer(KEY, frozenset({V4}))),
        RemovePeer(KEY),
        RemovePeer(OTHER),
        PutPeer(Peer(OTHER, frozenset())),
    ]
    assert [entry[:2] for entry in all_entries(*changes)] == [
        (KEY, REPLACE),
        (KEY, REMOVE),
        (OTHER, REMOVE),
        (OTHER, REPLACE),
    ]


def test_no_changes_are_no_message() -> None:
    """Nothing to change is no message."""
    assert bodies() == []


def test_many_peers_are_split() -> None:
    """No message's peers pass the limit, none are lost, and a fresh peer's two entries stay together."""
    keys = [n.to_bytes(32, "big") for n in range(1000)]
    made = bodies(*(PutPeer(Peer(key, frozenset({V4, V6})), fresh=True) for key in keys))
    assert len(made) > 1
    seen = []
    for body in made:
        assert len(body) <= PEERS_LIMIT + 64
        found = entries(body)
        assert [flags for _, flags, _ in found] == [REMOVE, REPLACE] * (len(found) // 2)
        seen += [key for key, flags, _ in found if flags == REPLACE]
    assert seen == keys


def test_many_allowed_ips_are_split() -> None:
    """A peer too big for one message replaces once and is then only added to, and never brought back by that."""
    prefixes = {Prefix(n.to_bytes(16, "big"), 128) for n in range(3000)}
    made = bodies(PutPeer(Peer(KEY, frozenset(prefixes)), fresh=True), RemovePeer(OTHER))
    assert len(made) > 1
    assert all(len(body) <= PEERS_LIMIT + 64 for body in made)
    found = [entry for body in made for entry in entries(body)]
    pieces = -(-len(prefixes) // ALLOWED_IPS_PER_ENTRY)
    assert [flags for _, flags, _ in found] == [REMOVE, REPLACE, *[UPDATE] * (pieces - 1), REMOVE]
    put = [each for _, _, allowed in found for each in allowed]
    assert len(put) == len(prefixes)
    assert set(put) == prefixes


@pytest.mark.parametrize("key", [b"", b"\x11" * 31, b"\x11" * 33])
def test_wrong_key_length(key: bytes) -> None:
    """A key that is not 32 bytes never reaches the kernel."""
    for change in (RemovePeer(key), PutPeer(Peer(key, frozenset()))):
        with pytest.raises(ValueError, match="32 bytes"):
            bodies(change)
    with pytest.raises(ValueError, match="32 bytes"):
        device_body("wga0", DeviceChange(private_key=key))


def test_attribute_too_long() -> None:
    """An attribute that does not fit its 16-bit length is refused rather than cut."""
    assert len(attribute(1, bytes(0xFFFF - 4))) == 0x10000
    with pytest.raises(ValueError, match="65536 bytes"):
        attribute(1, bytes(0xFFFF - 3))
