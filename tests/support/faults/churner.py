"""Another process's hand on an interface: peers come and go through wg(8), so many a second."""

from __future__ import annotations

import ipaddress
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from appliance.network.wireguard import keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random

    from appliance.network.wireguard.tunnel import Peer
    from tests.support.netns import Namespace

BATCH = 100  # peers a call of wg(8)


class Untouched(NamedTuple):
    """The peers at which nobody worked for a while: those that were there all the time, and those that were not."""

    there: set[bytes]
    gone: set[bytes]


class Churner:
    """Adds and removes `peers` in a thread. At first none of them is there, unless they are said to be."""

    def __init__(
        self, space: Namespace, interface: str, peers: Sequence[Peer], random: Random, *, per_second: int, there: bool
    ) -> None:
        self.changed = 0
        self.seconds = 0.0
        self._space = space
        self._interface = interface
        self._peers = {peer.public_key: peer for peer in peers}
        self._random = random
        self._per_second = per_second
        self._lock = threading.Lock()
        self._there = set(self._peers) if there else set()
        self._in_hand: frozenset[bytes] = frozenset()
        self._touched: set[bytes] = set()  # since `begin`

    @property
    def rate(self) -> float:
        """Peers added and removed a second."""
        return self.changed / self.seconds

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While the block runs; raises what the thread raised."""
        enough = threading.Event()
        failed: list[Exception] = []
        thread = threading.Thread(target=self._run, args=(enough, failed))
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()
        if failed:
            raise failed[0]

    def begin(self) -> None:
        with self._lock:
            self._touched = set(self._in_hand)

    def untouched(self) -> Untouched:
        """Since `begin`."""
        with self._lock:
            return Untouched(self._there - self._touched, self._peers.keys() - self._there - self._touched)

    def _run(self, enough: threading.Event, failed: list[Exception]) -> None:
        began = time.monotonic()
        try:
            with self._space.entered():
                while not enough.wait(max(0, began + self.changed / self._per_second - time.monotonic())):
                    self._change()
        except Exception as error:  # noqa: BLE001 (handed on to whoever waits)
            failed.append(error)
        self.seconds += time.monotonic() - began

    def _change(self) -> None:
        """As many come as go, and no peer is passed over."""
        adding = self._random.random() * len(self._peers) > len(self._there)
        pick = sorted(self._peers.keys() - self._there if adding else self._there)
        batch = self._random.sample(pick, min(BATCH, len(pick)))
        with self._lock:
            self._in_hand = frozenset(batch)
            self._touched |= self._in_hand
        if not adding:
            self._wg("set", self._interface, *(word for key in batch for word in ("peer", keys.encode(key), "remove")))
        elif self._random.random() < 0.5:
            self._wg("set", self._interface, *(word for key in batch for word in self._words(key)))
        else:
            self._add_from_file(batch)
        with self._lock:
            self._there = self._there | self._in_hand if adding else self._there - self._in_hand
            self._in_hand = frozenset()
        self.changed += len(batch)

    def _add_from_file(self, batch: Sequence[bytes]) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            for key in batch:
                _, name, _, ips = self._words(key)
                file.write(f"[Peer]\nPublicKey = {name}\nAllowedIPs = {ips}\n")
            file.flush()
            self._wg("addconf", self._interface, file.name)

    def _words(self, key: bytes) -> tuple[str, str, str, str]:
        ips = ",".join(f"{ipaddress.ip_address(p.address)}/{p.length}" for p in self._peers[key].allowed_ips)
        return "peer", keys.encode(key), "allowed-ips", ips

    def _wg(self, *arguments: str) -> None:
        done = subprocess.run(["wg", *arguments], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
