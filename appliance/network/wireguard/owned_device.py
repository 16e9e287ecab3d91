"""Guards a `TunnelDevice`: reads and changes the interface only while it is this appliance's own. Blocking."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.domain.errors import TunnelError
from appliance.network.wireguard import link_state, ownership
from appliance.network.wireguard.tunnel import LinkChange

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from appliance.network.wireguard.ownership import OwnMarks
    from appliance.network.wireguard.tunnel import DeviceChange, Dump, Link, PeerChange, RemotePeer, TunnelDevice

VANISH_TIMEOUT_S = 5.0
POLL_S = 0.02
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def random_ports(backend: str, link: Link) -> range:
    """Returns the ports that a device without a configured one may have.

    wireguard-go binds one when it starts, the kernel when the interface comes up (drivers/net/wireguard/socket.c,
    wg_socket_init).
    """
    if backend == "kernel" and not link.up:
        return range(0)
    try:
        low, high = map(int, _EPHEMERAL.read_text(encoding="ascii").split())
    except OSError:  # /proc is hidden
        return range(1, 1 << 16)
    return range(low, high + 1)


class OwnedDevice:
    """Wraps a `TunnelDevice`; each call raises TunnelError while the interface of its name is another program's.

    An interface is known by its index, which no later one has: one that was ours stays so, whatever key it is given
    meanwhile. A new one without a key, which another program has made while this one serves, is left to it for
    `patience_s`: it may be about to set it up.
    """

    def __init__(
        self, device: TunnelDevice, own: OwnMarks, patience_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._device = device
        self._own = own
        self._patience_s = patience_s
        self._monotonic = monotonic
        self._ifindex: int | None = None  # of the latest interface that is ours
        self._empty: tuple[int, float] | None = None  # a new interface without a key, and when it was first seen

    @property
    def interface_name(self) -> str:
        return self._device.interface_name

    @property
    def backend(self) -> str:
        return self._device.backend

    @property
    def dump_retries(self) -> int:
        return self._device.dump_retries

    def claim(self, within_s: float = VANISH_TIMEOUT_S) -> bytes | None:
        """Takes the interface that stands, if it is ours or nothing is set on it, and changes nothing.

        Returns its public key, None if there is no interface. Waits `within_s` for what is behind it to answer, or for
        it to go: the interface of a killed wireguard-go stays a moment. Raises TunnelError if it is not ours.
        """
        deadline = self._monotonic() + within_s
        while (found := self._device.link()) is None:
            if link_state.link_kind(self.interface_name) is None:
                return None
            if self._monotonic() > deadline:
                raise TunnelError(ownership.refusal(self.interface_name, "no WireGuard answers behind it"))
            time.sleep(POLL_S)
        return self._take(found, at_once=True).public_key

    def link(self) -> Link | None:
        found = self._device.link()
        if found is not None and found.ifindex != self._ifindex:
            self._take(found)
        return found

    def change_link(self, change: LinkChange) -> None:
        if change.create and self.link() is None:
            self._device.change_link(LinkChange(create=True))
            if (made := self._device.link()) is not None:
                self._take(made, at_once=True)
        self._require_own()
        self._device.change_link(replace(change, create=False))

    def configure(self, change: DeviceChange) -> None:
        self._require_own()
        self._device.configure(change)

    def dial(self, remote: RemotePeer, private_key: bytes | None = None) -> None:
        self._require_own()
        self._device.dial(remote, private_key)

    def dump(self) -> Dump:
        dump = self._device.dump()
        if dump.ifindex != self._ifindex:
            self.link()
        return dump

    def apply(self, changes: Sequence[PeerChange]) -> None:
        self._require_own()
        self._device.apply(changes)

    def delete(self) -> None:
        self._require_own()
        self._device.delete()

    def close(self) -> None:
        self._device.close()

    def _require_own(self) -> None:
        """Raises TunnelError if the interface is another program's. Where there is none, the device says so itself."""
        try:
            same = socket.if_nametoindex(self.interface_name) == self._ifindex
        except OSError:
            return
        if not same:
            self.link()

    def _take(self, found: Link, *, at_once: bool = False) -> Dump:
        """Takes an interface for ours; raises TunnelError if it is another program's, or may become that."""
        dump = self._device.dump()
        if dump.ifindex != found.ifindex:
            raise TunnelError(f"{self.interface_name}: the interface was replaced while it was read")
        shown = ownership.foreign(found, dump, self._own, random_ports(self.backend, found))
        if shown is not None:
            raise TunnelError(ownership.refusal(self.interface_name, shown))
        if ownership.is_empty(dump) and not at_once and not self._was_left_alone(found.ifindex):
            raise TunnelError(f"{self.interface_name}: another program has made an interface of this name just now")
        self._ifindex, self._empty = found.ifindex, None
        return dump

    def _was_left_alone(self, ifindex: int) -> bool:
        now = self._monotonic()
        if self._empty is None or self._empty[0] != ifindex:
            self._empty = (ifindex, now)
        return now - self._empty[1] >= self._patience_s
