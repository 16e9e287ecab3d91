"""What a WireGuard device is to the rest of the appliance: its state, its changes, its Protocol.

Three devices satisfy `Tunnel`: `kernel.KernelTunnel`, `userspace.UserspaceTunnel` and the tests'
in-memory one. All three pass the same contract tests (tests/tunnel_contract.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


class Prefix(NamedTuple):
    """An address with a prefix length. `address` is packed, network order: 4 bytes IPv4, 16 bytes IPv6."""

    address: bytes
    length: int


class Peer(Struct, frozen=True, gc=False):
    """A peer as it should be. `public_key` is the raw 32 bytes."""

    public_key: bytes
    allowed_ips: frozenset[Prefix]


class PeerState(Struct, frozen=True, gc=False):
    """A peer as the device reports it.

    `rx_bytes` is what the exit received from the client, `tx_bytes` what it sent. Both count from
    zero since this peer was added to this interface. `last_handshake_ns` is wall-clock time since the
    epoch, 0 before the first handshake.
    """

    public_key: bytes
    allowed_ips: frozenset[Prefix]
    rx_bytes: int
    tx_bytes: int
    last_handshake_ns: int


class ComparedPeers(Protocol):
    """Peers of a dump that are compared with those of another dump at once, and not one by one."""

    def changed_since(self, earlier: Self) -> Collection[bytes]:
        """The public keys of the peers that are new, gone or not as they were."""


@dataclass(frozen=True, slots=True)
class Dump:
    """One consistent reading of the device. `ifindex` tells one life of the interface from the next."""

    ifindex: int
    public_key: bytes  # of the device itself; 32 zero bytes while it has no private key
    listen_port: int
    peers: Mapping[bytes, PeerState]  # by public key
    compared: ComparedPeers | None = field(default=None, compare=False, repr=False)  # the same peers

    def changed_since(self, earlier: Dump | None) -> Collection[bytes]:
        """The public keys of the peers that are new, gone or not as they were; of all where nothing was earlier."""
        if earlier is None:
            return self.peers.keys()
        if earlier.ifindex != self.ifindex:
            # Of another interface all that is the same is so by chance.
            return self.peers.keys() | earlier.peers.keys()
        if self.compared is not None and earlier.compared is not None:
            return self.compared.changed_since(earlier.compared)
        was = earlier.peers.get
        gone = earlier.peers.keys() - self.peers.keys()
        return gone | {key for key, peer in self.peers.items() if was(key) != peer}


@dataclass(frozen=True, slots=True)
class Link:
    """The network interface as rtnetlink reports it. Link-local IPv6 addresses are left out: the kernel makes them."""

    ifindex: int
    up: bool
    mtu: int
    addresses: frozenset[Prefix]


@dataclass(frozen=True, slots=True)
class LinkChange:
    """What to change on the interface; a field left alone changes nothing. Applied in the order of the fields."""

    create: bool = False
    mtu: int | None = None
    remove_addresses: frozenset[Prefix] = frozenset()
    add_addresses: frozenset[Prefix] = frozenset()
    up: bool = False


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """What to change on the device; None leaves it. The private key is raw and never printed."""

    private_key: bytes | None = field(default=None, repr=False)
    listen_port: int | None = None


@dataclass(frozen=True, slots=True)
class PutPeer:
    """Make the device hold this peer with exactly these allowed-ips.

    `fresh` removes it first, in the same message, so that its counters and handshake start at zero.
    """

    peer: Peer
    fresh: bool = False

    @property
    def public_key(self) -> bytes:
        return self.peer.public_key


@dataclass(frozen=True, slots=True)
class RemovePeer:
    """Make the device not hold this peer. Removing an absent peer succeeds."""

    public_key: bytes


PeerChange = PutPeer | RemovePeer


class Tunnel(Protocol):
    """A WireGuard interface of one name. Every method raises `TunnelError` when the device refuses.

    Methods may be called from several tasks; an implementation keeps them from interleaving.
    A cancelled call may still take effect later: the caller reconciles afterwards.
    """

    @property
    def backend(self) -> str:
        """`kernel` or `userspace`."""

    @property
    def dump_retries(self) -> int:
        """How many dumps were taken again so far, because the device changed under them."""

    async def link(self) -> Link | None:
        """The interface, or None where there is none (or where nothing answers behind it)."""

    async def change_link(self, change: LinkChange) -> None: ...

    async def configure(self, change: DeviceChange) -> None: ...

    async def dump(self) -> Dump:
        """All peers, consistently: retried a bounded number of times when the device changes under it."""

    async def apply(self, changes: Sequence[PeerChange]) -> None:
        """In the order given. Where the device refuses peers, PeersRefused names them and the others are applied.

        After any other error some may have been applied.
        """

    async def delete(self) -> None:
        """Remove the interface (and the process behind it); no interface is no error."""

    async def close(self) -> None:
        """Give back sockets and threads; the interface stays."""
