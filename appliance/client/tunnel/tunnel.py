"""Declares the interface of the client's tunnels, and reads their counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from appliance.network.wireguard.backend import dump_existing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.client.tunnel.wg_config import SessionConfig


@dataclass(frozen=True, slots=True)
class TunnelCounters:
    """Holds a tunnel's byte counters. `handshake_s`: the last handshake, since the epoch; None before the first."""

    down: int
    up: int
    handshake_s: float | None


class ClientTunnel(Protocol):
    """Sends traffic to the exit. All methods but `down` may raise HostError or TunnelError."""

    default_resolvers: Sequence[str]  # used if neither the operator nor the user has named any

    def check(self) -> None:
        """Raises HostError or TunnelError if this host lacks what the tunnel needs."""

    def up(self, config: SessionConfig) -> None:
        """`config`: with an address as its host."""

    def change(self, before: SessionConfig, config: SessionConfig) -> None:
        """Adopts another session on the same key, whose address may differ."""

    def counters(self) -> TunnelCounters: ...

    def mark(self) -> int | None:
        """Returns the fwmark of packets that bypass the tunnel; None if others do not go into it anyway."""

    def down(self) -> list[str]:
        """Removes the tunnel, even if it is not or only partly up. Returns what could not be removed, in words."""


def read_counters(interface: str) -> TunnelCounters:
    """Reads the counters of an interface in this thread's network namespace. Raises HostError if it has gone."""
    peers = dump_existing(interface).peers.values()
    handshake_ns = max((peer.last_handshake_ns for peer in peers), default=0)
    return TunnelCounters(
        down=sum(peer.rx_bytes for peer in peers),
        up=sum(peer.tx_bytes for peer in peers),
        handshake_s=handshake_ns / 1e9 if handshake_ns else None,
    )
