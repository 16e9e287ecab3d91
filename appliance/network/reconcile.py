"""Computes the changes that bring the exit to its wanted state. Pure: states in, changes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.network.firewall import state as egress
from appliance.network.wireguard.tunnel import DeviceChange, LinkChange, PutPeer, RemovePeer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from appliance.network.firewall.state import EgressChanges, EgressState
    from appliance.network.wireguard.tunnel import Dump, Link, Peer, PeerChange, PeerState, Prefix


@dataclass(frozen=True, slots=True)
class Desired:
    """Describes the exit's wanted state. `peers` by public key; no allowed-ip belongs to two of them."""

    interface: str
    ipv6: bool
    public_key: bytes
    private_key: bytes = field(repr=False)
    listen_port: int
    mtu: int
    addresses: frozenset[Prefix]
    peers: Mapping[bytes, Peer]


@dataclass(frozen=True, slots=True)
class Actual:
    """Holds the exit's observed state. `link` is None without an interface; `dump` is then of an earlier one."""

    egress: EgressState
    link: Link | None
    dump: Dump | None


@dataclass(frozen=True, slots=True, eq=False)
class PeerChanges:
    """Names the peers that differ, and makes the change of one when it is its turn.

    All may differ, and the changes of all would take more memory than the exit's sessions. `fresh`: those of `put` that
    are missing. Read it while `desired` is as it was.
    """

    removed: Collection[bytes] = ()
    put: Collection[bytes] = ()
    fresh: AbstractSet[bytes] = frozenset()
    desired: Mapping[bytes, Peer] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.removed) + len(self.put)

    def __iter__(self) -> Iterator[PeerChange]:
        """Yields removals first: an ended session's address may already belong to another session."""
        for key in self.removed:
            yield RemovePeer(key)
        for key in self.put:
            yield PutPeer(self.desired[key], fresh=key in self.fresh)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PeerChanges) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]  # what it names may be a view

    def without(self, keys: AbstractSet[bytes]) -> PeerChanges:
        """Returns the changes without these missing peers."""
        if not keys:
            return self
        put = [key for key in self.put if key not in keys]
        return PeerChanges(self.removed, put, self.fresh - keys, self.desired)


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
        peers=_peer_changes(desired.peers, {} if dump is None else dump.peers),
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


def _peer_changes(desired: Mapping[bytes, Peer], actual: Mapping[bytes, PeerState]) -> PeerChanges:
    """A missing peer begins with counters at zero; one with wrong allowed-ips keeps its counters and handshake."""
    if not actual:
        return PeerChanges((), desired.keys(), desired.keys(), desired)  # without a copy of all keys
    fresh = {key for key in desired if key not in actual}
    wrong = {key for key in desired if key not in fresh and actual[key].allowed_ips != desired[key].allowed_ips}
    return PeerChanges(sorted(actual.keys() - desired.keys()), sorted(fresh | wrong), fresh, desired)
