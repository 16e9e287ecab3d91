"""Makes the exit equal to the store: applies the differences that `reconcile` finds."""

from __future__ import annotations

import logging
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

from appliance.config.log_format import about, some
from appliance.domain.errors import EgressError
from appliance.network.firewall.state import EgressChanges
from appliance.network.lazy_mapping import OnDemand
from appliance.network.reconcile import Actual, reconcile
from appliance.network.wireguard.keys import abbreviated
from appliance.sessions.contentions import DEVICE, FIREWALL, INTERFACE, PEERS, SYSCTL
from appliance.sessions.last_endpoints import LastEndpoints
from appliance.sessions.wanted_peers import WantedPeers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from ipaddress import IPv4Address, IPv6Address

    from appliance.network.exit_node import Exit
    from appliance.network.firewall.state import EgressState
    from appliance.network.reconcile import Changes, PeerChanges
    from appliance.network.wireguard.tunnel import Dump, Link, LinkChange, Tunnel
    from appliance.sessions.contentions import Contentions
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.node import Node
    from appliance.store.live import LiveSessions
    from appliance.store.live_devices import LiveDevices

log = logging.getLogger(__name__)

# Differences that are remembered from one comparison to the next. After more, all peers are compared once more, as the
# keys of all would take 80 bytes a session.
MOST_NOTED = 1000


class Egress(Protocol):
    """Controls how clients' packets leave the host: firewall, forwarding and conntrack."""

    async def observe(self) -> None:
        """Reads what `state` is to know of the host's routes, if it may have changed."""

    async def routing_fault(self) -> str | None:
        """Returns why the host's routing lets clients' packets not pass; None: they pass. The tunnel is up."""

    def state(self) -> EgressState:
        """Returns the egress as it stands."""

    async def apply(self, changes: EgressChanges) -> None:
        """Applies the changes. Raises EgressError."""

    async def forget(self, addresses: Collection[IPv4Address | IPv6Address]) -> None:
        """Deletes the conntrack flows from and to these addresses."""

    async def forget_others(self, held: Collection[IPv4Address | IPv6Address]) -> None:
        """Deletes the conntrack flows from and to all clients' addresses but these."""


class Host(Protocol):
    """Follows what the host gives the exit."""

    @property
    def public_ip(self) -> str:
        """Returns the address that new sessions are told."""

    @property
    def tunnel_mtu(self) -> int:
        """Returns the MTU that the host's uplinks leave for the tunnel."""

    async def observe(self) -> str | None:
        """Takes over what has changed. Returns why clients' packets cannot leave; None if they can."""


class Convergence:
    """Compares and repairs the exit. Its methods must be called with the exit lock held."""

    def __init__(
        self,
        tunnel: Tunnel,
        egress: Egress,
        live: LiveSessions,
        devices: LiveDevices,
        exit_: Exit,
        metrics: Metrics,
        host: Host,
        contentions: Contentions,
    ) -> None:
        self._tunnel = tunnel
        self._egress = egress
        self._live = live
        self._devices = devices
        self._wanted = WantedPeers(live, devices)
        self._exit = exit_
        self._metrics = metrics
        self._host = host
        self._contentions = contentions
        self._endpoints = LastEndpoints()
        self._compared: Dump | None = None  # the last dump in which all peers were equal, but for:
        self._unequal: set[bytes] | None = None  # None: it may be any
        self._loads = 0  # `live.loads` for which the two above hold
        self._compared_all = False
        self._declared: set[bytes] = set()  # devices whose peers come and go by the exit's own doing

    async def observe_host(self, node: Node) -> None:
        """Takes over what has changed of the host's addresses and routes; what depends on it is repaired next."""
        node.health.host(await self._host.observe())
        node.public_ip = self._host.public_ip

    async def read_link(self) -> Link | None:
        """Returns the interface as it stands, or None if there is none. Raises TunnelError."""
        return await self._tunnel.link()

    async def routing_fault(self, link: Link | None) -> str | None:
        """Returns why clients' packets do not pass although all of the exit's own is in place; None: they pass."""
        return None if link is None or not link.up else await self._egress.routing_fault()

    async def plan(self, link: Link | None, dump: Dump | None) -> Changes:
        """Returns what differs between the store and what was read. Raises TunnelError.

        Compares only peers that have changed on one of the two sides, or differed before.
        """
        await self._egress.observe()
        self._advance(self._live.take_dropped())
        # All of them count as unequal until compared: what follows may fail.
        keys = self._unequal = self._to_compare(link, dump)
        changes = self._changes(keys, link, dump)
        missing: AbstractSet[bytes] = frozenset() if dump is None else changes.peers.fresh
        if missing:
            del changes  # all peers may be missing: those of the second dump are not to be held beside these
            changes = await self._confirmed(keys, missing, link)
        # One that is there after all, the next dump has to show: if it lacks it as this one does, nothing has changed.
        self._endpoints.read(dump, _without_endpoint(changes.peers, missing))
        if self._declared:
            self._declared &= {*changes.peers.put, *changes.peers.removed}
        many = max(len(missing), len(changes.peers)) > MOST_NOTED
        self._unequal = None if many else {*missing, *changes.peers.removed, *changes.peers.put}
        return self._contentions.due(changes)

    def _advance(self, dropped: Collection[bytes]) -> None:
        """Takes the last dump, and forgets where the peers of these keys were, whose sessions have ended.

        Of a device that is held for what ended its session the exit knows it when the device comes back. Of one whose
        session was closed it does not: it would be the exit that begins the next.
        """
        held = [key for key in dropped if self._devices.is_held(key)]
        self._endpoints.advance(dropped if not held else [key for key in dropped if not self._devices.is_held(key)])
        self._note_held(held)

    def _note_held(self, public_keys: Collection[bytes]) -> None:
        """Keeps where the peers of devices are that have become held and have no session; forgets them afterwards."""
        for key in public_keys:
            if self._devices.is_held(key) and key in self._live.public_keys():
                continue
            if self._devices.is_held(key):
                self._endpoints.hold(key)
            elif self._devices.may_connect(key):
                self._endpoints.let_go(key)
            else:
                self._endpoints.forget(key)

    def take_compared_all(self) -> bool:
        """Tells whether all peers were compared since this was last called."""
        compared_all, self._compared_all = self._compared_all, False
        return compared_all

    def _to_compare(self, link: Link | None, dump: Dump | None) -> set[bytes] | None:
        """Returns the keys of the peers to compare; None: all."""
        declared = self._devices.take_touched()
        self._note_held(declared)
        self._declared |= declared
        touched = self._live.take_touched() | declared
        last, unequal = self._compared, self._unequal
        if link is None or dump is None or last is None or unequal is None or self._loads != self._live.loads:
            # What the peers were equal to is not known: compare all.
            self._compared, self._loads = None if link is None else dump, self._live.loads
            self._compared_all = True
            return None
        keys = unequal.union(touched, dump.changed_since(last))
        self._compared = dump
        return keys

    def _changes(self, keys: set[bytes] | None, link: Link | None, dump: Dump | None) -> Changes:
        wanted = self._wanted
        peers = wanted if keys is None else OnDemand({key for key in keys if key in wanted}, wanted.__getitem__)
        new = {key for key in self._devices.new() if key in wanted}
        if dump is not None and (new or keys is not None):
            # What a removed device has left, with its counters, is not the peer of a new one that has its key.
            shown = dump.peers
            some = {key for key in (shown if keys is None else keys) if key in shown and key not in new}
            dump = replace(dump, peers=OnDemand(some, shown.__getitem__), compared=None)
        desired = self._exit.desired(peers, self._host.tunnel_mtu)
        return reconcile(desired, Actual(self._egress.state(), link, dump, self._endpoints))

    async def apply(self, changes: Changes) -> EgressError | None:
        """Applies the changes. `Meter.restart` must have been called for the peers that are added afresh.

        Returns the error if only the egress cannot be repaired and the interface exists. Raises EgressError or
        TunnelError otherwise.
        """
        self._report(changes)
        fault = None
        if changes.egress is not None:
            try:
                await self._egress.apply(changes.egress)
                egress = changes.egress
                firewall = egress.rules or egress.policy_rules or egress.filter
                self._count(firewall=firewall, sysctl=len(egress.sysctls))
                self._note_egress(changes.egress)
            except EgressError as error:
                fault = error
                if changes.link is not None and changes.link.create:
                    raise
        if changes.link is not None:
            await self._tunnel.change_link(changes.link)
            self._count(interface=1)
            if changes.link.create and not self._egress.state().filter_stands:
                # Before it has peers, to whom packets could be sent.
                await self._egress.apply(EgressChanges(filter=True))
            self._contentions.repaired(INTERFACE)
        if changes.device is not None:
            await self._tunnel.configure(changes.device)
            self._count(device=1)
            self._contentions.repaired(DEVICE)
        if changes.peers:
            await self._tunnel.apply(changes.peers)
            kinds = _by_kind(changes.peers, self._declared)
            self._declared = set()
            self._count(**{kind: len(keys) for kind, keys in kinds.items()})
            if any(kinds.values()):
                self._contentions.repaired(PEERS)
        return fault

    def _note_egress(self, changes: EgressChanges) -> None:
        if changes.rules and not changes.declared:
            self._contentions.repaired(FIREWALL, self._egress.state().changed_by)
        if changes.sysctls and not changes.declared:  # else they are of interfaces that came with the new rules
            self._contentions.repaired(SYSCTL)

    def _count(self, **repairs: int) -> None:
        for kind, many in repairs.items():
            self._metrics.repairs.labels(kind).inc(many)

    def _report(self, changes: Changes) -> None:
        """Logs one line for each kind of change, so that hundreds of foreign peers do not fill the log."""
        if changes.link is not None:
            log.info("interface: %s", ", ".join(_link_words(changes.link)))
        if changes.device is not None:
            log.info("device: private key or port set")
        kinds = _by_kind(changes.peers, self._declared)
        if removed := kinds["peer_removed"]:
            log.warning(
                "peers of no session removed", extra=about(count=len(removed), keys=some(map(abbreviated, removed)))
            )
        if restored := kinds["peer_restored"]:
            log.info("peers restored", extra=self._about_peers(restored))
        keepalives = changes.peers.keepalives
        if changed := [key for key in kinds["peer_changed"] if key not in keepalives]:
            log.info("allowed-ips set", extra=self._about_peers(changed))
        if changed := [key for key in kinds["peer_changed"] if key in keepalives]:
            log.info("keepalives set", extra=self._about_peers(changed))
        if settled := changes.peers.settled:
            log.debug("keepalives ended", extra=self._about_peers(settled))

    def _about_peers(self, keys: Collection[bytes]) -> dict[str, object]:
        sessions = self._live.public_keys()
        ids = {
            "sessions": some(self._wanted[key].id for key in keys if key in sessions),
            "devices": some(self._wanted[key].id for key in keys if key not in sessions),
        }
        return about(count=len(keys), **{what: those for what, those in ids.items() if those})

    async def _confirmed(self, keys: set[bytes] | None, missing: AbstractSet[bytes], link: Link | None) -> Changes:
        """Returns what differs from a second dump, without peers that only this one lacks. `missing`: from the first.

        A dump ends early if the peer under its cursor is removed: only a peer that two dumps lack is missing.
        """
        changes = self._changes(keys, link, await self._tunnel.dump())
        return replace(changes, peers=changes.peers.without(changes.peers.fresh - missing))


def _without_endpoint(changes: PeerChanges, missing: AbstractSet[bytes]) -> AbstractSet[bytes]:
    """Returns the keys of sessions whose endpoint is to be remembered. `missing`: in the first dump."""
    if len(changes.put) == len(changes.fresh) >= len(missing):
        return changes.fresh  # perhaps of all: without a copy
    return {*missing, *changes.fresh, *(key for key, keepalive_s in changes.keepalives.items() if keepalive_s)}


def _by_kind(changes: PeerChanges, declared: AbstractSet[bytes]) -> Mapping[str, Collection[bytes]]:
    """Returns the peers' public keys by the kind of repair. `declared`: those whose changes are none."""
    changed = [key for key in changes.put if key not in changes.fresh and key not in changes.settled]
    kinds = {"peer_restored": changes.fresh, "peer_changed": changed, "peer_removed": changes.removed}
    if not declared:
        return kinds
    return {kind: [key for key in keys if key not in declared] for kind, keys in kinds.items()}


def _link_words(change: LinkChange) -> Iterator[str]:
    if change.create:
        yield "created"
    if change.mtu is not None:
        yield f"mtu {change.mtu}"
    for verb, addresses in (("removed", change.remove_addresses), ("added", change.add_addresses)):
        for prefix in sorted(addresses):
            yield f"{verb} {ip_address(prefix.address)}/{prefix.length}"
    if change.up:
        yield "up"
    if change.forward and not change.create:
        yield "forwarding on"
    for prefix in sorted(change.add_routes):
        network = prefix.network
        yield f"route to {ip_address(network.address)}/{network.length} added"
