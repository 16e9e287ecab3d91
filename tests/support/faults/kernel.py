"""A model of the kernel's WireGuard: keeps what truly moved, and can be made to fail as the real one does."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from appliance.domain.errors import DumpInterrupted, TunnelError
from appliance.network.wireguard.tunnel import SocketAddress
from tests.support.fake_tunnel import FakeTunnel
from tests.support.faults.ledger import Pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from appliance.network.wireguard.tunnel import DeviceChange, Dump, Link, LinkChange, PeerChange, PutPeer
    from tests.support.faults.host import Host
    from tests.support.faults.ledger import Ledger
    from tests.support.faults.process import Process


def where(key: bytes) -> SocketAddress:
    """Where the client with this key is."""
    return SocketAddress(key[:4], 1 + key[4])


class ModelKernel(FakeTunnel):
    """Outlives every process. An ifindex is never given twice in one boot, and given again in the next."""

    def __init__(self, host: Host, ledger: Ledger) -> None:
        super().__init__()
        self._host = host
        self._ledger = ledger
        self._ifindex = 4
        self._shakes = 0
        self._carries_until: dict[bytes, int] = {}  # ran_ms
        self.failing_dumps = 0
        self.short_dump: Callable[[bytes], bool] | None = None  # which peers the next dump shows
        self.hidden: set[bytes] = set()  # peers that the last dump did not show
        self.was_cut_short = False  # the last dump: a stranger's peer that it missed is seen by the next one
        self.failing_changes: deque[bool] = deque()  # the next changes fail; True: after they took effect

    # What clients, strangers and the host do ---------------------------------------------------------

    def traffic(self, key: bytes, rx: int, tx: int, *, handshake: bool = False) -> None:
        when = None
        if handshake:
            self._shakes += 1
            when = self._host.wall_ms * 1_000_000 + self._shakes
            self._ledger.heard(key, handshake=True)
            self._ledger.carried.shaken(key, when)
            self._carries_until[key] = self._host.ran_ms + self._ledger.reject_after_ms
        self.add_traffic(key, rx=rx, tx=tx, handshake_ns=when, endpoint=where(key))
        self._ledger.moved(key, Pair(rx, tx))

    def can_carry(self, key: bytes) -> bool:
        """Tells whether client and exit have keys with each other."""
        state = self.interface.peers[key]
        return state.last_handshake_ns > 0 and self._host.ran_ms < self._carries_until[key]

    def vanish(self) -> None:
        for key in list(self.interface.peers):
            self._ledger.peer_gone(key)
        super().vanish()

    def reboot(self, away_ms: int) -> None:
        self.vanish()
        self._ledger.carried.went_down()
        self._host.reboot(away_ms)
        self._ifindex = 4

    def lose(self, key: bytes) -> None:
        """A stranger removes a peer."""
        if self.interface.peers.pop(key, None) is not None:
            self._ledger.peer_gone(key)

    def add_again(self, key: bytes) -> None:
        """A stranger removes a peer and adds it as it was: its counters and its handshake start at zero."""
        state = self.interface.peers[key]
        self._ledger.peer_gone(key, at_once_back=True)
        self.interface.peers[key] = structs.replace(
            state, rx_bytes=0, tx_bytes=0, last_handshake_ns=0, endpoint=None, keepalive_s=0
        )
        self._ledger.peer_added(key)

    # What the appliance does -------------------------------------------------------------------------

    async def change_link(self, change: LinkChange) -> None:
        created = self.interface.link is None and change.create
        await super().change_link(change)
        if created and self.interface.link is not None:
            self._ifindex += 1
            self.interface.link = replace(self.interface.link, ifindex=self._ifindex)

    async def dump(self) -> Dump:
        if self.failing_dumps:
            self.failing_dumps -= 1
            raise DumpInterrupted("the device kept changing")
        dump = await super().dump()
        self.was_cut_short = self.short_dump is not None
        if self.short_dump is not None:
            dump = replace(dump, peers={key: p for key, p in dump.peers.items() if self.short_dump(key)})
            self.short_dump = None
        self.hidden = self.interface.peers.keys() - dump.peers.keys()
        self._ledger.dumped(dump)
        return dump

    def looked_at(self, dump: Dump) -> None:
        """The process has this dump."""
        self._ledger.looked_at(dump)

    async def apply(self, changes: Sequence[PeerChange]) -> None:
        fails = self.failing_changes.popleft() if self.failing_changes else None
        if fails is False:
            raise TunnelError("refused")
        before = set(self.interface.peers)
        await super().apply(changes)
        for key in sorted(before - self.interface.peers.keys()):
            self._ledger.peer_removed(key)
        if fails is True:
            raise TunnelError("done, and the answer lost")

    def _put(self, change: PutPeer) -> None:
        key, fresh = change.public_key, change.fresh
        stood = key in self.interface.peers
        super()._put(change)
        if fresh or not stood:
            self._ledger.peer_gone(key)
            self._ledger.peer_added(key)
        if fresh:
            self._ledger.heard(key, handshake=False)
        elif not stood:
            self._ledger.put_back(key)


class MortalTunnel:
    """The kernel, as long as the process lives."""

    backend = "kernel"

    def __init__(self, kernel: ModelKernel, process: Process) -> None:
        self._kernel = kernel
        self._process = process

    async def link(self) -> Link | None:
        return await self._process.do(self._kernel.link)

    async def change_link(self, change: LinkChange) -> None:
        await self._do(lambda: self._kernel.change_link(change))

    async def configure(self, change: DeviceChange) -> None:
        await self._do(lambda: self._kernel.configure(change))

    async def dump(self) -> Dump:
        dump = await self._process.do(self._kernel.dump)
        self._kernel.looked_at(dump)
        return dump

    async def apply(self, changes: Sequence[PeerChange]) -> None:
        await self._do(lambda: self._kernel.apply(changes))

    async def delete(self) -> None:
        await self._do(self._kernel.delete)

    async def close(self) -> None:
        """Nothing to give back."""

    async def _do(self, change: Callable[[], Awaitable[None]]) -> None:
        await self._process.do(change)
