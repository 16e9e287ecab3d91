"""A tunnel in memory that outlives its appliance's process, as the kernel does: what it holds is in a file."""

from __future__ import annotations

import fcntl
import pickle
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.support.fake_tunnel import FakeInterface, FakeTunnel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from appliance.network.wireguard.tunnel import DeviceChange, Dump, Link, LinkChange, PeerChange


class KeptTunnel(FakeTunnel):
    """Is one process's way to the interface. Processes take turns; one that is killed in the middle changes nothing."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file
        self._lock = file.with_suffix(".lock")
        self._lock.touch()

    async def link(self) -> Link | None:
        with self._held():
            return await super().link()

    async def change_link(self, change: LinkChange) -> None:
        with self._held():
            made = self.interface.link is None
            await super().change_link(change)
            if made and self.interface.link is not None:  # the kernel never gives an index again in one boot
                self.interface.link = replace(self.interface.link, ifindex=time.monotonic_ns() // 1000 % 2**31)

    async def configure(self, change: DeviceChange) -> None:
        with self._held():
            await super().configure(change)

    async def dump(self) -> Dump:
        with self._held():
            return await super().dump()

    async def apply(self, changes: Sequence[PeerChange]) -> None:
        with self._held():
            await super().apply(changes)

    async def delete(self) -> None:
        with self._held():
            await super().delete()

    def pour(self, public_key: bytes, rx: int, tx: int) -> bool:
        """Traffic of this peer; tells whether there is one."""
        with self._held():
            if public_key not in self.interface.peers:
                return False
            self.add_traffic(public_key, rx=rx, tx=tx, handshake_ns=time.time_ns())
            return True

    def forget(self) -> None:
        """The host went down."""
        with self._held():
            self.interface = FakeInterface()

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._lock.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._file.exists():
                self.interface = pickle.loads(self._file.read_bytes())  # noqa: S301 (the tests' own)
            else:
                self.interface = FakeInterface()
            before = pickle.dumps(self.interface)
            yield
            after = pickle.dumps(self.interface)
            if after != before:
                made = self._file.with_suffix(".new")
                made.write_bytes(after)
                made.replace(self._file)
