"""A tunnel in memory, for tests that need a device and no packets. It passes the contract the real ones pass."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from msgspec import structs

from appliance.domain.errors import TunnelError
from appliance.network.wireguard import keys
from appliance.network.wireguard.batch import PeersRefused
from appliance.network.wireguard.tunnel import Dump, Link, PeerState, RemovePeer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.network.wireguard.tunnel import DeviceChange, LinkChange, PeerChange, PutPeer, SocketAddress

_ifindexes = itertools.count(1000)  # the kernel too never gives one again


@dataclass(slots=True)
class FakeInterface:
    """What stays when the tunnel object goes: give it to the next `FakeTunnel` to play a restart."""

    link: Link | None = None
    public_key: bytes = bytes(32)
    listen_port: int = 0
    peers: dict[bytes, PeerState] = field(default_factory=dict)


class FakeTunnel:
    """What the kernel would do, and three handles on it: traffic, failures and a gate.

    `add_traffic` plays a client. `fail_next` makes the next calls raise. While `gate` is cleared every call
    waits at its beginning, as one does on a device that hangs. `applied` lists the peer changes that were done.
    """

    def __init__(self, interface: FakeInterface | None = None) -> None:
        self.interface = interface or FakeInterface()
        self.gate = asyncio.Event()
        self.gate.set()
        self.applied: list[PeerChange] = []
        self.waiting = 0  # calls at the gate
        self.closed = False
        self.dump_retries = 0
        self._failures: list[TunnelError] = []

    # The tests' handles ---------------------------------------------------------------------------

    def add_traffic(
        self,
        public_key: bytes,
        *,
        rx: int = 0,
        tx: int = 0,
        handshake_ns: int | None = None,
        endpoint: SocketAddress | None = None,
    ) -> None:
        """Let this peer's counters grow, and its last handshake and its endpoint be these if given."""
        state = self.interface.peers[public_key]
        self.interface.peers[public_key] = structs.replace(
            state,
            rx_bytes=state.rx_bytes + rx,
            tx_bytes=state.tx_bytes + tx,
            last_handshake_ns=state.last_handshake_ns if handshake_ns is None else handshake_ns,
            endpoint=state.endpoint if endpoint is None else endpoint,
        )

    def fail_next(self, *errors: TunnelError) -> None:
        """The next calls raise these, one each, and change nothing."""
        self._failures += errors

    def vanish(self) -> None:
        """Somebody deletes the interface, or kills wireguard-go."""
        self.interface.link = None
        self.interface.public_key = bytes(32)
        self.interface.listen_port = 0
        self.interface.peers.clear()

    @property
    def peers(self) -> dict[bytes, PeerState]:
        """The peers now, without waiting at the gate."""
        return dict(self.interface.peers)

    # The Tunnel Protocol --------------------------------------------------------------------------

    @property
    def backend(self) -> str:
        return "kernel"

    async def link(self) -> Link | None:
        await self._begin()
        return self.interface.link

    async def change_link(self, change: LinkChange) -> None:
        await self._begin()
        if self.interface.link is None and change.create:
            self.interface.link = Link(ifindex=next(_ifindexes), up=False, mtu=1420, addresses=frozenset())
        link = self._existing()
        self.interface.link = replace(
            link,
            mtu=link.mtu if change.mtu is None else change.mtu,
            addresses=link.addresses - change.remove_addresses | change.add_addresses,
            up=link.up or change.up,
            forwards=link.forwards or change.forward,
            routes=link.routes | {prefix.network for prefix in change.add_addresses | change.add_routes},
        )

    async def configure(self, change: DeviceChange) -> None:
        await self._begin()
        self._existing()
        if change.private_key is not None:
            self.interface.public_key = keys.public_key(change.private_key)
            self.interface.peers.pop(self.interface.public_key, None)  # a device is no peer of its own
        if change.listen_port is not None:
            self.interface.listen_port = change.listen_port

    async def dump(self) -> Dump:
        await self._begin()
        return Dump(
            ifindex=self._existing().ifindex,
            public_key=self.interface.public_key,
            listen_port=self.interface.listen_port,
            peers=dict(self.interface.peers),
        )

    async def apply(self, changes: Sequence[PeerChange]) -> None:
        await self._begin()
        if changes:
            self._existing()
        refused: dict[bytes, str] = {}
        for change in changes:
            if isinstance(change, RemovePeer):
                self.interface.peers.pop(change.public_key, None)
            elif all(prefix.length <= 8 * len(prefix.address) for prefix in change.peer.allowed_ips):
                self._put(change)
            else:
                refused[change.public_key] = "no such allowed-ip"
                continue
            self.applied.append(change)
        if refused:
            raise PeersRefused("the fake", refused)

    async def delete(self) -> None:
        await self._begin()
        self.vanish()

    async def close(self) -> None:
        self.closed = True

    async def _begin(self) -> None:
        if self.closed:
            raise TunnelError("used after close()")
        self.waiting += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        if self._failures:
            raise self._failures.pop(0)

    def _existing(self) -> Link:
        if self.interface.link is None:
            raise TunnelError("there is no such interface")
        return self.interface.link

    def _put(self, change: PutPeer) -> None:
        peer = change.peer
        if peer.public_key == self.interface.public_key:
            return  # the kernel too says nothing and does nothing
        new = PeerState(
            public_key=peer.public_key, allowed_ips=frozenset(), rx_bytes=0, tx_bytes=0, last_handshake_ns=0
        )
        state = new if change.fresh else self.interface.peers.get(peer.public_key, new)
        for key, other in self.interface.peers.items():
            # An allowed-ip stands with one peer: the last one it was given to.
            if key != peer.public_key and other.allowed_ips & peer.allowed_ips:
                self.interface.peers[key] = structs.replace(other, allowed_ips=other.allowed_ips - peer.allowed_ips)
        self.interface.peers[peer.public_key] = structs.replace(
            state,
            allowed_ips=peer.allowed_ips,
            endpoint=state.endpoint if change.endpoint is None else change.endpoint,
            keepalive_s=state.keepalive_s if change.keepalive_s is None else change.keepalive_s,
        )
