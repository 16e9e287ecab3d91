"""Finds connections that clients hold beyond what they may, for a table of the host's that is nearly full. Pure.

The kernel counts a client's connections without the TCP ones that are closed (net/netfilter/nf_conncount.c,
already_closed). Those stay in the table for two minutes, longer if packets of theirs still come, and the kernel drops
none of them for a new connection (nf_conntrack_core.c, early_drop_list): a few clients that open and close would fill
it, and nobody else could begin any.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from ipaddress import IPv4Address, IPv6Address

CROWDED = 0.75  # of the table's limit


class ClientFlow(Protocol):
    """Tells whose a flow is, and whether it is a TCP connection that has ended."""

    @property
    def source(self) -> IPv4Address | IPv6Address: ...

    @property
    def closed(self) -> bool: ...


F = TypeVar("F", bound=ClientFlow)


def sources_over(sources: Iterable[bytes], hostmask: int, most: int) -> list[bytes]:
    """Returns the addresses of clients with more than `most` flows. `sources`: each flow's, packed.

    `hostmask`: of the tunnel's IPv4 subnet. A client's addresses have the same place in both subnets.
    """
    by_source, by_client = Counter(sources), Counter[int]()
    for source, flows in by_source.items():
        by_client[_place(source, hostmask)] += flows
    return [source for source in by_source if by_client[_place(source, hostmask)] > most]


def excess(flows: Iterable[F], hostmask: int, most: int) -> Iterator[F]:
    """Yields the closed flows, and of each client's others those beyond `most`."""
    kept = Counter[int]()
    for flow in flows:
        place = _place(flow.source.packed, hostmask)
        kept[place] += not flow.closed
        if flow.closed or kept[place] > most:
            yield flow


def _place(source: bytes, hostmask: int) -> int:
    return int.from_bytes(source[-4:], "big") & hostmask
