"""Lets one task at a time read counters or change peers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.network.wireguard.tunnel import Tunnel


@dataclass(frozen=True, slots=True)
class PeerAccess:
    """Holds the tunnel, and the lock that says when its peers may be changed.

    Hold `exit_lock` while reading counters or changing peers, until the store has the outcome. `tunnel` must answer
    each call or raise TunnelError within `apply_timeout` seconds.
    """

    tunnel: Tunnel
    exit_lock: asyncio.Lock
    apply_timeout: float

    def deadline(self) -> float:
        """Returns the event loop's time by which a request that arrives now must be answered."""
        return asyncio.get_running_loop().time() + self.apply_timeout
