"""What an answer of wireguard-go's is, as plain Python says it: what native/uapi.c is held against."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.domain.errors import MalformedDump
from appliance.network.wireguard import keys
from appliance.network.wireguard.tunnel import Dump, PeerState, Prefix, SocketAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

NS_PER_S = 1_000_000_000
MOST = {
    "rx_bytes": 2**64 - 1,
    "tx_bytes": 2**64 - 1,
    "last_handshake_time_sec": 2**63 // NS_PER_S - 1,
    "last_handshake_time_nsec": NS_PER_S - 1,
    "persistent_keepalive_interval": 2**16 - 1,
}
OPTIONAL = {"persistent_keepalive_interval"}
MAPPED_IPV4 = bytes(10) + b"\xff\xff"


def reference(answer: bytes, ifindex: int) -> Dump | int:
    """The dump, or the errno that the device answered with. Raises MalformedDump."""
    lines = [*_lines(answer)]
    if not lines or lines[-1][0] != "errno":
        raise MalformedDump("an answer without errno")
    if error := _integer(lines[-1][1].removeprefix("-"), 1 << 16):
        _device(lines[:-1], whole=False)
        return error
    public_key, listen_port, peers = _device(lines[:-1], whole=True)
    found = {peer.public_key: peer.state() for peer in peers}
    if len(found) != len(peers):
        raise MalformedDump("a peer appears twice")
    return Dump(ifindex=ifindex, public_key=public_key, listen_port=listen_port, peers=found)


def _device(lines: list[tuple[str, str]], *, whole: bool) -> tuple[bytes, int, list[_PeerLines]]:
    """`whole`: the last peer must be, too; those before it always."""
    device: dict[str, int | bytes] = {}
    peers: list[_PeerLines] = []
    for key, value in lines:
        if key == "errno":
            raise MalformedDump("an answer that does not end after errno")
        if key == "public_key":
            for last in peers[-1:]:
                last.state()
            peers.append(_PeerLines(_key(value)))
        elif peers:
            peers[-1].take(key, value)
        elif key in ("private_key", "listen_port"):
            if key in device:
                raise MalformedDump(f"a device with two {key}")
            device[key] = keys.public_key(_key(value)) if key == "private_key" else _integer(value, 0xFFFF)
    for last in peers[-1:] if whole else ():
        last.state()
    public_key, listen_port = device.get("private_key", bytes(32)), device.get("listen_port", 0)
    assert isinstance(public_key, bytes)
    assert isinstance(listen_port, int)
    return public_key, listen_port, peers


@dataclass
class _PeerLines:
    public_key: bytes
    allowed_ips: set[Prefix] = field(default_factory=set)
    numbers: dict[str, int] = field(default_factory=dict)
    endpoints: list[SocketAddress | None] = field(default_factory=list)

    def take(self, key: str, value: str) -> None:
        if key == "allowed_ip":
            self.allowed_ips.add(_prefix(value))
        elif key == "endpoint":
            if self.endpoints:
                raise MalformedDump("a peer with two endpoint")
            self.endpoints.append(_endpoint(value))
        elif key in MOST:
            if key in self.numbers:
                raise MalformedDump(f"a peer with two {key}")
            self.numbers[key] = _integer(value, MOST[key])

    def state(self) -> PeerState:
        if MOST.keys() - OPTIONAL - self.numbers.keys():
            raise MalformedDump("a peer without one of its numbers")
        handshake_s = self.numbers["last_handshake_time_sec"]
        return PeerState(
            public_key=self.public_key,
            allowed_ips=frozenset(self.allowed_ips),
            rx_bytes=self.numbers["rx_bytes"],
            tx_bytes=self.numbers["tx_bytes"],
            last_handshake_ns=handshake_s * NS_PER_S + self.numbers["last_handshake_time_nsec"],
            endpoint=next(iter(self.endpoints), None),
            keepalive_s=self.numbers.get("persistent_keepalive_interval", 0),
        )


def _lines(answer: bytes) -> Iterator[tuple[str, str]]:
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


def _key(value: str) -> bytes:
    try:
        key = bytes.fromhex(value)
    except ValueError:
        key = b""
    # The length of the text too: fromhex() skips blanks.
    if len(key) != 32 or len(value) != 64:
        raise MalformedDump("a key is not 32 bytes of hex")
    return key


def _integer(value: str, most: int) -> int:
    # The text is ASCII by now: isdigit() alone lets other scripts' digits through.
    if not value.isdigit() or len(value) > 20 or int(value) > most:
        raise MalformedDump(f"not a whole number up to {most}")
    return int(value)


def _prefix(value: str) -> Prefix:
    text, _, length = value.partition("/")
    family, most = (socket.AF_INET6, 128) if ":" in text else (socket.AF_INET, 32)
    try:
        address = socket.inet_pton(family, text)
    except (OSError, ValueError) as error:
        raise MalformedDump("allowed_ip is not an address") from error
    return Prefix(address, _integer(length, most))


def _endpoint(value: str) -> SocketAddress | None:
    if value.startswith("["):
        host, end, port = value.removeprefix("[").partition("]:")
        family = socket.AF_INET6
        if "]" in host:
            raise MalformedDump("endpoint is not an address and a port")
    else:
        host, end, port = value.partition(":")
        family = socket.AF_INET
    text, zoned, zone = host.partition("%") if family == socket.AF_INET6 else (host, "", "")
    try:
        address = socket.inet_pton(family, text)
    except (OSError, ValueError) as error:
        raise MalformedDump("endpoint is not an address") from error
    number = _integer(port if end else "", 0xFFFF)
    scope_id = _zone(zone) if zoned else 0
    if not number or (zoned and not scope_id):
        return None
    return SocketAddress(address.removeprefix(MAPPED_IPV4), number, scope_id)


def _zone(zone: str) -> int:
    if zone.isdigit() and len(zone) <= 20 and int(zone) < 1 << 32:
        return int(zone)
    try:
        return socket.if_nametoindex(zone)
    except (OSError, ValueError):
        return 0
