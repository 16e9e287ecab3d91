"""Decides where answers to clients need their mark to pass the kernel's reverse path filter. Pure.

Where `rp_filter` is not 0 the kernel looks up the way back to the sender of each packet that it forwards, as if what
goes back came in by the interface that the packet leaves by (net/ipv4/fib_frontend.c, __fib_validate_source). For
answers to clients that is the tunnel, and from there ip rules prohibit all that has no mark. This lookup has the
packet's mark only where `src_valid_mark` is 1. For IPv6 the kernel has no such filter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.sysctl_paths import OFF, ON, interface_of, of_interface

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FILTER, BY_MARK = "rp_filter", "src_valid_mark"
FILTER_ALL, BY_MARK_ALL = of_interface(4, "all", FILTER), of_interface(4, "all", BY_MARK)


def to_read(interfaces: Iterable[str]) -> set[str]:
    """Returns the sysctls that decide on what comes in by these interfaces."""
    return {of_interface(4, name, key) for name in (*interfaces, "all") for key in (FILTER, BY_MARK)}


def filtered(values: Mapping[str, str], interfaces: Iterable[str]) -> frozenset[str]:
    """Returns those of the interfaces whose packets the kernel filters. The larger value of all's and its own holds."""
    everywhere = values.get(FILTER_ALL, OFF) != OFF
    return frozenset(
        name
        for name in interfaces
        if (own := values.get(of_interface(4, name, FILTER))) is not None and (everywhere or own != OFF)
    )


def wanted(values: Mapping[str, str], found: Mapping[str, str], interfaces: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields the sysctls that have to be set: marks count where it filters, and elsewhere is as it was `found`."""
    needing = _needing(values, interfaces)
    yield from ((of_interface(4, name, BY_MARK), ON) for name in sorted(needing))
    for name, value in sorted(found.items()):
        former = interface_of(name, 4, BY_MARK)
        if former is not None and former not in needing and name in values:
            yield name, value


def given_back(values: Mapping[str, str], found: Mapping[str, str], interfaces: Iterable[str]) -> frozenset[str]:
    """Returns the sysctls that need not be recorded any more: they are as they were found, where nothing filters."""
    needing = _needing(values, interfaces)
    return frozenset(
        name
        for name, value in found.items()
        if (former := interface_of(name, 4, BY_MARK)) is not None
        and former not in needing
        and values.get(name, value) == value
    )


def _needing(values: Mapping[str, str], interfaces: Iterable[str]) -> frozenset[str]:
    return frozenset() if values.get(BY_MARK_ALL) == ON else filtered(values, interfaces)
