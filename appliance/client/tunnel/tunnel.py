"""What a tunnel of the client's is to the rest of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from appliance.client.tunnel.device import existing_device

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Figures:
    """`handshake_s`: of the last one, since the epoch; None before the first."""

    down: int
    up: int
    handshake_s: float | None


class ClientTunnel(Protocol):
    """All but `down` raise HostError or TunnelError."""

    default_resolvers: Sequence[str]  # where neither the operator nor the user has named some

    def check(self) -> None:
        """Whether this host has what it takes."""

    def up(self, config: str) -> None: ...

    def change(self, config: str) -> None:
        """Another session on the same key: its address may be another one."""

    def figures(self) -> Figures: ...

    def mark(self) -> int | None:
        """Of packets that are not to go into the tunnel; None where others do not go there anyway."""

    def down(self) -> list[str]:
        """Also where it never came up, or half. What could not be taken away, in words."""


def read_figures(interface: str) -> Figures:
    """Of the interface in this thread's network namespace. Raises HostError where it has gone."""
    peers = existing_device(interface).dump().peers.values()
    handshake_ns = max((peer.last_handshake_ns for peer in peers), default=0)
    return Figures(
        down=sum(peer.rx_bytes for peer in peers),
        up=sum(peer.tx_bytes for peer in peers),
        handshake_s=handshake_ns / 1e9 if handshake_ns else None,
    )
