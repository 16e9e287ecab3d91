"""Computes the changes that bring the exit to its wanted state. Pure: states in, changes out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from appliance.network.firewall import state as egress
from appliance.network.wireguard.tunnel import DeviceChange, LinkChange, PutPeer, RemovePeer, SocketAddress

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from appliance.network.firewall.state import EgressChanges, EgressState
    from appliance.network.wireguard.tunnel import Dump, Link, Peer, PeerChange, PeerState, Prefix


# Bytes to a peer that has answered none: three minutes of a call of 148 bytes every five seconds.
CALLED_IN_VAIN = 36 * 148


class Endpoints(Protocol):
    """Knows where peers were last seen."""

    def get(self, public_key: bytes, /) -> SocketAddress | None:
        """Returns where a peer was last seen; None: it is not known."""


@dataclass(frozen=True, slots=True)
class Desired:
    """Describes the exit's wanted state. `peers` by public key; no allowed-ip belongs to two of them.

    `keepalive_s`: of a peer that is put back where it was last seen, until it has shaken hands or is called in vain;
    others have none.
    """

    interface: str
    ipv6: bool
    public_key: bytes
    private_key: bytes = field(repr=False)
    listen_port: int
    mtu: int
    addresses: frozenset[Prefix]
    peers: Mapping[bytes, Peer]
    keepalive_s: int


@dataclass(frozen=True, slots=True)
class Actual:
    """Holds the exit's observed state. `link` is None without an interface; `dump` is then of an earlier one.

    `endpoints`: of peers that the dump shows without one, or not at all.
    """

    egress: EgressState
    link: Link | None
    dump: Dump | None
    endpoints: Endpoints = field(default_factory=dict[bytes, SocketAddress])


@dataclass(frozen=True, slots=True, eq=False)
class PeerChanges:
    """Names the peers that differ, and makes the change of one when it is its turn.

    All may differ, and the changes of all would take more memory than the exit's sessions. `fresh`: those of `put` that
    are missing, `keepalives`: what is set on others of them; with one, both are put where they were last seen.
    `settled`: those whose keepalive is over, with nothing else to change. Read it while `desired` and `endpoints` are
    as they were.
    """

    removed: Collection[bytes] = ()
    put: Collection[bytes] = ()
    fresh: AbstractSet[bytes] = frozenset()
    desired: Mapping[bytes, Peer] = field(default_factory=dict, repr=False)
    endpoints: Endpoints = field(default_factory=dict[bytes, SocketAddress], repr=False)
    keepalive_s: int = 0
    keepalives: Mapping[bytes, int] = field(default_factory=dict)
    settled: AbstractSet[bytes] = frozenset()

    def __len__(self) -> int:
        return len(self.removed) + len(self.put)

    def __iter__(self) -> Iterator[PeerChange]:
        """Yields removals first: an ended session's address may already belong to another session."""
        for key in self.removed:
            yield RemovePeer(key)
        for key in self.put:
            yield self._put(key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PeerChanges) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]  # what it names may be a view

    def _put(self, key: bytes) -> PutPeer:
        fresh = key in self.fresh
        keepalive_s = self.keepalive_s if fresh else self.keepalives.get(key)
        endpoint = self.endpoints.get(key) if keepalive_s else None
        if fresh and endpoint is None:
            keepalive_s = None
        return PutPeer(self.desired[key], fresh, endpoint, keepalive_s)

    def without(self, keys: AbstractSet[bytes]) -> PeerChanges:
        """Returns the changes without these missing peers."""
        if not keys:
            return self
        put = [key for key in self.put if key not in keys]
        return replace(self, put=put, fresh=self.fresh - keys)


@dataclass(frozen=True, slots=True)
class Changes:
    """Lists only the differences, to be applied in field order.

    The order ensures that nothing is forwarded without its rules, and that a taken port shows on a link that is up.
    """

    egress: EgressChanges | None = None
    link: LinkChange | None = None
    device: DeviceChange | None = None
    peers: PeerChanges = field(default_factory=PeerChanges)

    def __bool__(self) -> bool:
        return self != Changes()


def reconcile(desired: Desired, actual: Actual) -> Changes:
    dump = None if actual.link is None else actual.dump
    return Changes(
        egress=egress.reconcile(actual.egress, interface=desired.interface, ipv6=desired.ipv6),
        link=_link_change(desired, actual.link),
        device=_device_change(desired, dump),
        peers=_peer_changes(desired, {} if dump is None else dump.peers, actual.endpoints),
    )


def _link_change(desired: Desired, link: Link | None) -> LinkChange | None:
    if link is None:
        return LinkChange(create=True, mtu=desired.mtu, add_addresses=desired.addresses, up=True, forward=True)
    change = LinkChange(
        mtu=None if link.mtu == desired.mtu else desired.mtu,
        remove_addresses=link.addresses - desired.addresses,
        add_addresses=desired.addresses - link.addresses,
        up=not link.up,
        forward=not link.forwards,
        add_routes=_without_route(link, desired.addresses),
    )
    return None if change == LinkChange() else change


def _without_route(link: Link, wanted: frozenset[Prefix]) -> frozenset[Prefix]:
    """Returns the addresses that stand, and whose network's route has gone: the kernel adds it with the address."""
    if not link.up:
        return frozenset()
    return frozenset(prefix for prefix in wanted & link.addresses if prefix.network not in link.routes)


def _device_change(desired: Desired, dump: Dump | None) -> DeviceChange | None:
    # Compared by the public key: the device's private one is never read.
    change = DeviceChange(
        private_key=None if dump is not None and dump.public_key == desired.public_key else desired.private_key,
        listen_port=None if dump is not None and dump.listen_port == desired.listen_port else desired.listen_port,
    )
    return None if change == DeviceChange() else change


def _peer_changes(wanted: Desired, actual: Mapping[bytes, PeerState], endpoints: Endpoints) -> PeerChanges:
    """A missing peer begins with counters at zero; one with wrong allowed-ips keeps its counters and handshake."""
    desired = wanted.peers
    changes = PeerChanges(desired=desired, endpoints=endpoints, keepalive_s=wanted.keepalive_s)
    if not actual:
        return replace(changes, put=desired.keys(), fresh=desired.keys())  # without a copy of all keys
    fresh, wrong = set[bytes](), set[bytes]()
    keepalives: dict[bytes, int] = {}
    settled = set[bytes]()
    for key in desired:
        if key not in actual:
            fresh.add(key)
            continue
        peer = actual[key]
        keepalive_s = _keepalive(peer, endpoints, wanted.keepalive_s)
        if keepalive_s is not None:
            keepalives[key] = keepalive_s
        if peer.allowed_ips != desired[key].allowed_ips:
            wrong.add(key)
        elif keepalive_s == 0 and peer.keepalive_s == wanted.keepalive_s:
            settled.add(key)
    removed, put = sorted(actual.keys() - desired.keys()), sorted({*fresh, *wrong, *keepalives})
    return replace(changes, removed=removed, put=put, fresh=fresh, keepalives=keepalives, settled=settled)


def _keepalive(peer: PeerState, endpoints: Endpoints, until_handshake_s: int) -> int | None:
    """Returns the keepalive to set on a peer; None: it may keep what it has.

    A client whose peer was put back has keys that the exit has lost, and may not send for minutes. A keepalive makes
    the exit shake hands; after that it would only keep quiet clients awake. A client that does not answer for three
    minutes has lost its keys too, and begins by itself when it sends: it is not called, and billed, for ever.
    """
    if peer.last_handshake_ns or peer.tx_bytes >= CALLED_IN_VAIN:
        return 0 if peer.keepalive_s else None
    if peer.endpoint is None and endpoints.get(peer.public_key) is not None:
        return until_handshake_s  # added again by another program, or where it was not known to be missing
    if peer.keepalive_s in (0, until_handshake_s):
        return None
    return 0 if peer.endpoint is None else until_handshake_s
