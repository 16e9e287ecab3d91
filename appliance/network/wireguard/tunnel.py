"""Defines a WireGuard device's state, its changes, and two protocols to reach it: `TunnelDevice` blocks, `Tunnel` is
awaited.

`kernel.KernelDevice` and `userspace.UserspaceDevice` satisfy `TunnelDevice`; `device_tunnel.DeviceTunnel` makes a
`Tunnel` of either. These and the tests' in-memory `Tunnel` pass the same contract tests
(tests/support/tunnel_contract.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from msgspec import Struct, structs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from appliance.network.wireguard.client_config import Endpoint


class Prefix(NamedTuple):
    """Holds an address and prefix length. `address` is packed, network order: 4 bytes IPv4, 16 bytes IPv6."""

    address: bytes
    length: int

    @property
    def network(self) -> Prefix:
        """Returns the network of an address: itself without the bits behind the prefix."""
        bits = 8 * len(self.address)
        number = int.from_bytes(self.address, "big") >> (bits - self.length) << (bits - self.length)
        return Prefix(number.to_bytes(len(self.address), "big"), self.length)


class SocketAddress(NamedTuple):
    """Holds where a peer's packets come from. `address` is packed; `scope_id`: the interface of a link-local one."""

    address: bytes
    port: int
    scope_id: int = 0


class Peer(Struct, frozen=True, gc=False):
    """Describes a peer's wanted state. `public_key` is the raw 32 bytes."""

    public_key: bytes
    allowed_ips: frozenset[Prefix]


class PeerState(Struct, frozen=True, gc=False):
    """Holds a peer's state as the device reports it.

    `rx_bytes` is what the exit received from the client, `tx_bytes` what it sent. Both count from
    zero since this peer was added to this interface. `last_handshake_ns` is wall-clock time since the
    epoch, 0 before the first handshake. `endpoint`: where the device sends to; None: not known. `keepalive_s` 0: none.
    """

    public_key: bytes
    allowed_ips: frozenset[Prefix]
    rx_bytes: int
    tx_bytes: int
    last_handshake_ns: int
    endpoint: SocketAddress | None = None
    keepalive_s: int = 0

    def differs(self, earlier: PeerState | None) -> bool:
        """Tells whether the peer has changed. The endpoint alone is no change: a client that moves sends, too."""
        return earlier is None or structs.replace(earlier, endpoint=self.endpoint) != self


class ComparedPeers(Protocol):
    """Compares the peers of two dumps as a whole, not one by one."""

    def changed_since(self, earlier: Self) -> Collection[bytes]:
        """Returns the public keys of peers added, removed or changed (`PeerState.differs`)."""


@dataclass(frozen=True, slots=True)
class Dump:
    """Holds one consistent reading of the device. `ifindex` changes when the interface is created again."""

    ifindex: int
    public_key: bytes  # of the device itself; 32 zero bytes while it has no private key
    listen_port: int
    peers: Mapping[bytes, PeerState]  # by public key
    compared: ComparedPeers | None = field(default=None, compare=False, repr=False)  # the same peers

    def changed_since(self, earlier: Dump | None) -> Collection[bytes]:
        """Returns the public keys of peers added, removed or changed; of all peers if there is no earlier dump."""
        if earlier is None:
            return self.peers.keys()
        if earlier.ifindex != self.ifindex:
            # Equal values of another interface are coincidental.
            return self.peers.keys() | earlier.peers.keys()
        if self.compared is not None and earlier.compared is not None:
            return self.compared.changed_since(earlier.compared)
        was = earlier.peers.get
        gone = earlier.peers.keys() - self.peers.keys()
        return gone | {key for key, peer in self.peers.items() if peer.differs(was(key))}


@dataclass(frozen=True, slots=True)
class Link:
    """Describes the interface as rtnetlink reports it, without link-local IPv6 addresses: the kernel adds those.

    `forwards`: whether the kernel forwards IPv4 packets that come in by it. `routes`: the networks that the main table
    has by it as its own addresses bring them.
    """

    ifindex: int
    up: bool
    mtu: int
    addresses: frozenset[Prefix]
    forwards: bool = False
    routes: frozenset[Prefix] = frozenset()


@dataclass(frozen=True, slots=True)
class LinkChange:
    """Lists changes to the interface, applied in field order; a field at its default changes nothing."""

    create: bool = False
    mtu: int | None = None
    remove_addresses: frozenset[Prefix] = frozenset()
    add_addresses: frozenset[Prefix] = frozenset()
    up: bool = False
    forward: bool = False
    add_routes: frozenset[Prefix] = frozenset()  # the addresses whose networks have no route


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """Lists changes to the device; None changes nothing. The private key is raw and never printed."""

    private_key: bytes | None = field(default=None, repr=False)
    listen_port: int | None = None


@dataclass(frozen=True, slots=True)
class PutPeer:
    """Adds or updates this peer, with exactly these allowed-ips.

    `fresh` removes it first, in the same message, so that its counters and handshake start at zero. None keeps the
    endpoint and the keepalive that it has, or has none. With a keepalive (0: none) a peer that has an endpoint, and had
    no keepalive, is sent one at once, for which the device shakes hands. An endpoint out of reach is no error.
    """

    peer: Peer
    fresh: bool = False
    endpoint: SocketAddress | None = None
    keepalive_s: int | None = None

    @property
    def public_key(self) -> bytes:
        return self.peer.public_key


@dataclass(frozen=True, slots=True)
class RemovePeer:
    """Removes this peer. Removing an absent peer succeeds."""

    public_key: bytes


PeerChange = PutPeer | RemovePeer


@dataclass(frozen=True, slots=True)
class RemotePeer:
    """Describes the peer that a client dials, for all traffic: the server."""

    public_key: bytes
    endpoint: Endpoint
    keepalive_s: int  # also makes the device start a handshake with a new peer at once


class TunnelDevice(Protocol):
    """Controls the WireGuard interface of one name in the network namespace of the calling thread. Blocking.

    For one thread at a time. Each method does what the method of the same name of `Tunnel` does.
    """

    @property
    def interface_name(self) -> str: ...

    @property
    def backend(self) -> str: ...

    @property
    def dump_retries(self) -> int: ...

    def link(self) -> Link | None: ...

    def change_link(self, change: LinkChange) -> None: ...

    def configure(self, change: DeviceChange) -> None: ...

    def dial(self, remote: RemotePeer, private_key: bytes | None = None) -> None:
        """Replaces all peers by this one; `private_key` None keeps the device's. Raises TunnelError if refused.

        A peer that was kept would go on with the keys of a session that has ended.
        """

    def dump(self) -> Dump: ...

    def apply(self, changes: Sequence[PeerChange]) -> None: ...

    def delete(self) -> None: ...

    def close(self) -> None: ...


class Tunnel(Protocol):
    """Controls the WireGuard interface of one name. Every method raises TunnelError if the device refuses.

    Methods may be called from several tasks; an implementation keeps them from interleaving.
    A cancelled call may still take effect later: the caller reconciles afterwards.
    """

    @property
    def backend(self) -> str:
        """Returns `kernel` or `userspace`."""

    @property
    def dump_retries(self) -> int:
        """Counts the dumps retried so far because the device changed during them."""

    async def link(self) -> Link | None:
        """Returns the interface, or None if there is none (or no process answers behind it)."""

    async def change_link(self, change: LinkChange) -> None: ...

    async def configure(self, change: DeviceChange) -> None: ...

    async def dump(self) -> Dump:
        """Dumps all peers consistently; retries a bounded number of times if the device changes meanwhile."""

    async def apply(self, changes: Iterable[PeerChange]) -> None:
        """Applies changes in order. Raises PeersRefused, naming them, if peers are refused; the others are applied.

        Many are taken and applied in pieces, one after another, between which other calls may be answered. After any
        other error, some may have been applied.
        """

    async def delete(self) -> None:
        """Removes the interface (and the process behind it), if there is one."""

    async def close(self) -> None:
        """Closes sockets and ends threads; the interface stays."""
