"""Encodes and parses the cross-platform configuration protocol (https://www.wireguard.com/xplatform/); no sockets here.

A request is `set=1` or `get=1` and `key=value` lines up to an empty line; an answer ends with `errno=N` and an
empty line. Keys are lowercase hex. A peer's lines follow its `public_key`. This is all the state there is, the
private key included: answers are parsed and dropped, never logged.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.domain.errors import MalformedDump
from appliance.network.wireguard import keys
from appliance.network.wireguard.tunnel import DeviceChange, Dump, PeerState, Prefix, PutPeer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from appliance.network.wireguard.tunnel import Peer, PeerChange, RemotePeer

GET = b"get=1\n\n"
END = b"\n\n"

_U64_MAX = 2**64 - 1
_NS_PER_S = 1_000_000_000


def device_request(change: DeviceChange) -> bytes:
    return _request(["set=1", *_device(change)])


def dial_request(remote: RemotePeer, private_key: bytes | None) -> bytes:
    """Encodes the replacement of all peers by one, which all traffic goes to."""
    lines = (
        "set=1",
        *_device(DeviceChange(private_key=private_key)),
        "replace_peers=true",
        f"public_key={remote.public_key.hex()}",
        f"endpoint={remote.endpoint}",
        f"persistent_keepalive_interval={remote.keepalive_s}",
        "allowed_ip=0.0.0.0/0",
        "allowed_ip=::/0",
    )
    return _request(lines)


def peers_request(changes: Sequence[PeerChange], *, again: bool = False) -> bytes:
    """Encodes the changes in order; the device applies them line by line.

    `again`: repeats changes that were applied already, and therefore omits removals.
    """
    lines = ["set=1"]
    for change in changes:
        if not again and (not isinstance(change, PutPeer) or change.fresh):
            lines += (f"public_key={change.public_key.hex()}", "remove=true")
        if isinstance(change, PutPeer):
            lines += _put(change.peer)
    return _request(lines)


def parse_errno(answer: bytes) -> int:
    """Returns the answer's errno, positive (wireguard-go writes it negated). Raises MalformedDump if it has none."""
    return abs(_integer("errno", dict(_lines(answer)).get("errno", ""), 1 << 16, signed=True))


def parse_listen_port(answer: bytes) -> int:
    """Returns the port from the answer to `get=1`; 0 while the device has none."""
    return _integer("listen_port", dict(_lines(answer)).get("listen_port", "0"), 0xFFFF)


def parse_dump(answer: bytes, ifindex: int) -> Dump:
    """Parses the device from the whole answer to `get=1` (errno 0). Raises MalformedDump if it is malformed.

    Skips unknown keys, as the protocol requires. Keeps only the public key of the private key.
    """
    public_key = bytes(32)
    listen_port = 0
    peers: dict[bytes, PeerState] = {}
    peer: _PeerLines | None = None
    for key, value in _lines(answer):
        if key == "public_key":
            if peer is not None:
                peers[peer.public_key] = peer.state()
            peer = _PeerLines(_key(key, value))
            if peer.public_key in peers:
                raise MalformedDump("a peer appears twice")
        elif key == "errno":
            break
        elif peer is not None:
            peer.take(key, value)
        elif key == "private_key":
            public_key = keys.public_key(_key(key, value))
        elif key == "listen_port":
            listen_port = _integer(key, value, 0xFFFF)
    if peer is not None:
        peers[peer.public_key] = peer.state()
    return Dump(ifindex=ifindex, public_key=public_key, listen_port=listen_port, peers=peers)


@dataclass(slots=True)
class _PeerLines:
    """Collects the values of one peer's lines."""

    public_key: bytes
    allowed_ips: set[Prefix] = field(default_factory=set)
    numbers: dict[str, int] = field(default_factory=dict)

    def take(self, key: str, value: str) -> None:
        if key == "allowed_ip":
            self.allowed_ips.add(_prefix(value))
        elif key in ("rx_bytes", "tx_bytes"):
            self.numbers[key] = _integer(key, value, _U64_MAX)
        elif key == "last_handshake_time_sec":
            self.numbers[key] = _integer(key, value, 2**63 // _NS_PER_S - 1)
        elif key == "last_handshake_time_nsec":
            self.numbers[key] = _integer(key, value, _NS_PER_S - 1)

    def state(self) -> PeerState:
        try:
            handshake_s = self.numbers["last_handshake_time_sec"]
            return PeerState(
                public_key=self.public_key,
                allowed_ips=frozenset(self.allowed_ips),
                rx_bytes=self.numbers["rx_bytes"],
                tx_bytes=self.numbers["tx_bytes"],
                last_handshake_ns=handshake_s * _NS_PER_S + self.numbers["last_handshake_time_nsec"],
            )
        except KeyError as error:
            # A missing counter is not a zero: taken for one, it would look like a reset.
            raise MalformedDump(f"a peer without {error.args[0]}") from error


def _device(change: DeviceChange) -> Iterator[str]:
    if change.private_key is not None:
        yield f"private_key={change.private_key.hex()}"
    if change.listen_port is not None:
        yield f"listen_port={change.listen_port}"


def _put(peer: Peer) -> Iterator[str]:
    yield f"public_key={peer.public_key.hex()}"
    yield "replace_allowed_ips=true"
    for prefix in sorted(peer.allowed_ips):
        family = socket.AF_INET if len(prefix.address) == 4 else socket.AF_INET6
        yield f"allowed_ip={socket.inet_ntop(family, prefix.address)}/{prefix.length}"


def _request(lines: Iterable[str]) -> bytes:
    return "\n".join(lines).encode("ascii") + END


def _lines(answer: bytes) -> Iterator[tuple[str, str]]:
    """Yields the key and value of each line, up to the empty line that ends the answer."""
    try:
        text = answer.decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedDump("an answer that is not ASCII") from error
    body, end, rest = text.partition("\n\n")
    if not end or rest:
        raise MalformedDump("an answer that does not end where its empty line is")
    for line in body.split("\n"):
        key, equals, value = line.partition("=")
        if not equals:
            raise MalformedDump("a line that is not key=value")
        yield key, value


def _key(name: str, value: str) -> bytes:
    try:
        key = bytes.fromhex(value)
    except ValueError:
        key = b""
    # The length of the text too: fromhex() skips blanks.
    if len(key) != 32 or len(value) != 64:
        raise MalformedDump(f"{name} is not 32 bytes of hex")
    return key


def _integer(name: str, value: str, most: int, *, signed: bool = False) -> int:
    digits = value.removeprefix("-") if signed else value
    # isdigit() alone lets other scripts' digits through; the text is ASCII by now.
    if not digits.isdigit() or len(digits) > 20 or int(digits) > most:
        raise MalformedDump(f"{name} is not a whole number up to {most}")
    return int(value)


def _prefix(value: str) -> Prefix:
    text, _, length = value.partition("/")
    family, most = (socket.AF_INET6, 128) if ":" in text else (socket.AF_INET, 32)
    try:
        address = socket.inet_pton(family, text)
    except (OSError, ValueError) as error:
        raise MalformedDump("allowed_ip is not an address") from error
    return Prefix(address, _integer("allowed_ip's length", length, most))
