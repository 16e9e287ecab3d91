"""`python -m tests.support.fleet.memory_exit --config FILE serve`: the whole program, on a tunnel in memory.

For many exits with many sessions on one machine: no packet passes, and a peer costs no device. While the file that
BUSY_VARIABLE names is there, a tenth of the peers has traffic in each second.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from appliance.cli import cli
from appliance.network.wireguard.tunnel import Dump, PeerState, PutPeer, RemovePeer
from appliance.server import run
from tests.support.fake_tunnel import FakeTunnel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from appliance.network.wireguard.tunnel import PeerChange

BUSY_VARIABLE = "MEMORY_EXIT_BUSY"
TURNS = 10  # seconds in which each peer has traffic once
MOVED = 100_000  # bytes, each time


class MovedPeers:
    """Compares two dumps by when each peer has changed last."""

    def __init__(self, at: int, changed: Mapping[bytes, int]) -> None:
        self._at = at
        self._changed = changed

    def changed_since(self, earlier: MovedPeers) -> Collection[bytes]:
        return {key for key, at in self._changed.items() if earlier._at < at <= self._at}


class MemoryTunnel(FakeTunnel):
    """Holds thousands of peers: what the fake does for each of them at each change is left out."""

    def __init__(self, busy: Path) -> None:
        super().__init__()
        self._busy = busy
        self._dumps = 0
        self._changed: dict[bytes, int] = {}

    async def apply(self, changes: Iterable[PeerChange]) -> None:
        for change in changes:
            self._changed[change.public_key] = self._dumps + 1
            if isinstance(change, RemovePeer):
                self.interface.peers.pop(change.public_key, None)
            else:
                self._put(change)

    async def dump(self) -> Dump:
        self._dumps += 1
        if self._busy.exists():
            self._move()
        interface, link = self.interface, self._existing()
        compared = MovedPeers(self._dumps, self._changed)
        return Dump(link.ifindex, interface.public_key, interface.listen_port, dict(interface.peers), compared)

    def _put(self, change: PutPeer) -> None:
        peer = change.peer
        known = None if change.fresh else self.interface.peers.get(peer.public_key)
        state = known or PeerState(peer.public_key, frozenset(), 0, 0, 0)
        self.interface.peers[peer.public_key] = structs.replace(state, allowed_ips=peer.allowed_ips)

    def _move(self) -> None:
        now = time.time_ns()
        for number, key in enumerate(list(self.interface.peers)):
            if number % TURNS == self._dumps % TURNS:
                self.add_traffic(key, rx=MOVED, tx=10 * MOVED, handshake_ns=now)
                self._changed[key] = self._dumps


def main() -> None:
    tunnel = MemoryTunnel(Path(os.environ[BUSY_VARIABLE]))
    run.choose_device = lambda *_: (tunnel, "in memory, for a test")  # type: ignore[assignment, return-value]
    run.claim = lambda device, *_, **__: device  # type: ignore[assignment]
    run.DeviceTunnel = lambda device: device  # type: ignore[misc, assignment]
    cli()


if __name__ == "__main__":
    main()
