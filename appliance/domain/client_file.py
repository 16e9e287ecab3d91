"""Decides what a client's file may name: for the exit that writes it, and for the client that dials by it. Pure."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING

from appliance.domain.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_RESOLVERS = 8  # of a DNS line; what asks them takes three (resolv.conf(5)), other systems some more

_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_THIS_NETWORK, _RESERVED = ip_network("0.0.0.0/8"), ip_network("240.0.0.0/4")  # RFC 1122 and RFC 1112
_IPV4_COMPATIBLE = ip_network("::/96")  # RFC 4291, section 2.5.5.1: given up


def is_host_name(text: str) -> bool:
    """Tells whether an endpoint's text is a host's name (RFC 1123, section 2.1), and no number of an address.

    A label may begin with a digit, the last one too, unless all of it is a number: getaddrinfo(3) takes "127.1" and
    "0x7f.1" for addresses. https://url.spec.whatwg.org/#ends-in-a-number-checker
    """
    labels = text.split(".")
    return len(text) <= 253 and all(map(_LABEL.fullmatch, labels)) and not _NUMBER.fullmatch(labels[-1])


def is_special(address: IPv4Address | IPv6Address) -> bool:
    """Tells whether an address is none of one host, or means its reader's own machine or link."""
    if address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local:
        return True
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped is not None or address in _IPV4_COMPATIBLE
    return address in _THIS_NETWORK or address in _RESERVED


def require_reachable(dns: Sequence[IPv4Address | IPv6Address], *, ipv6: bool) -> None:
    """Raises InvalidRequest if none of the resolvers that are asked for can be asked. `ipv6`: the file has it."""
    if dns and not ipv6 and all(address.version == 6 for address in dns):
        raise InvalidRequest("dns has no IPv4 address, and ipv6 is false")
