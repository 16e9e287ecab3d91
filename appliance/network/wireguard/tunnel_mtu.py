"""Works out the MTU of a tunnel from the lines that carry it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Outer IP header, UDP header, WireGuard's message header and tag. https://www.wireguard.com/protocol/
OVERHEAD = {4: 20 + 8 + 32, 6: 40 + 8 + 32}
LEAST = 1280  # RFC 8200, section 5: a link that carries IPv6
MOST = 1500 - OVERHEAD[6]  # what Ethernet leaves, and what the other end most likely has


def fitting(lines: Iterable[int]) -> int:
    """Returns the MTU of a tunnel over lines of these MTUs, from LEAST to MOST.

    Takes the larger overhead, as wg-quick(8) does, so that the tunnel fits whichever IP version carries it.
    """
    return min(MOST, max(LEAST, min(lines, default=MOST + OVERHEAD[6]) - OVERHEAD[6]))
