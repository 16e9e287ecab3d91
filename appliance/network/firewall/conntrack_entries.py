"""Reads the entries of conntrack's listings, and writes requests to delete them. Pure: bytes in, bytes out.

A client may have tens of thousands of them, so an entry is read by the places at which the kernel puts its addresses
(net/netfilter/nf_conntrack_netlink.c, ctnetlink_fill_info: the original tuple, the reply tuple, then the zone); one
that looks different is read attribute by attribute.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from appliance.network.netlink import constants
from appliance.network.netlink.codec import NLA_HEADER, NLMSG_HEADER, attribute, attributes, nest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NFGENMSG = struct.Struct("=BBH")  # family, version, resource
_SOURCES = (constants.CTA_IP_V4_SRC, constants.CTA_IP_V6_SRC)
_DESTINATIONS = (constants.CTA_IP_V4_DST, constants.CTA_IP_V6_DST)

# Netlink's header, nfgenmsg, and the headers of the tuple, of its addresses and of its source.
_BEGINNING = struct.Struct("=IHHIIBBHHHHHHH")
_TUPLE_AT = NLMSG_HEADER.size + NFGENMSG.size
_SOURCE_AT = _BEGINNING.size
_NESTED = constants.NLA_F_NESTED
_IP = constants.CTA_TUPLE_IP | _NESTED
_ORIGINAL = constants.CTA_TUPLE_ORIG | _NESTED
_REPLY = constants.CTA_TUPLE_REPLY | _NESTED
_USUAL = {
    (4, constants.CTA_IP_V4_SRC): (4, constants.CTA_IP_V4_DST),
    (16, constants.CTA_IP_V6_SRC): (16, constants.CTA_IP_V6_DST),
}


class ConntrackEntry(NamedTuple):
    """Holds an entry: its ends as packed addresses, and the attributes by which the kernel finds it.

    `name` has no id: another flow that has begun since between the same ends and ports is as good.
    """

    family: int
    source: bytes
    destination: bytes
    name: bytes


def read(datagram: bytes) -> tuple[list[ConntrackEntry], bool]:
    """Returns the entries in a datagram of a listing, without those that are not IP; and whether the listing ends.

    Raises OSError with the kernel's errno if it refused.
    """
    entries, at, end = list[ConntrackEntry](), 0, len(datagram)
    while at + NLMSG_HEADER.size <= end:
        length, kind, *_ = NLMSG_HEADER.unpack_from(datagram, at)
        if kind == constants.NLMSG_DONE or length < NLMSG_HEADER.size:
            return entries, True
        if kind == constants.NLMSG_ERROR:
            if code := errno_of(datagram[at + NLMSG_HEADER.size :]):
                raise OSError(code, os.strerror(code))
        else:
            stop = min(at + length, end)  # a message that is cut short is read as far as it goes
            entry = _usual(datagram, at, stop) or _any(datagram[at + NLMSG_HEADER.size : stop])
            if entry is not None:
                entries.append(entry)
        at += (length + 3) & ~3
    return entries, False


def _usual(datagram: bytes, at: int, end: int) -> ConntrackEntry | None:
    """Reads an entry by its places; None if it is not laid out as usual."""
    if end - at < _SOURCE_AT:
        return None
    *_, family, _, _, size, first, _, second, source_size, third = _BEGINNING.unpack_from(datagram, at)
    expected = _USUAL.get((source_size - NLA_HEADER.size, third))
    if first != _ORIGINAL or second != _IP or expected is None:
        return None
    width = expected[0]
    source_at = at + _SOURCE_AT
    destination_at = source_at + width + NLA_HEADER.size
    reply_at = at + _TUPLE_AT + size
    if destination_at + width > end or reply_at + NLA_HEADER.size > end:
        return None
    destination_size, fourth = NLA_HEADER.unpack_from(datagram, destination_at - NLA_HEADER.size)
    reply_size, fifth = NLA_HEADER.unpack_from(datagram, reply_at)
    if (destination_size - NLA_HEADER.size, fourth) != expected or fifth != _REPLY or size & 3 or reply_size & 3:
        return None
    name, zone_at = datagram[at + _TUPLE_AT : reply_at], reply_at + reply_size
    if zone_at + NLA_HEADER.size <= end and NLA_HEADER.unpack_from(datagram, zone_at)[1] == constants.CTA_ZONE:
        name += datagram[zone_at : zone_at + 8]
    return ConntrackEntry(
        family,
        datagram[source_at : source_at + width],
        datagram[destination_at : destination_at + width],
        name,
    )


def _any(payload: bytes) -> ConntrackEntry | None:
    """Reads an entry attribute by attribute; None if it is not IP, or truncated."""
    fields = dict(attributes(payload[NFGENMSG.size :]))
    original = addresses(fields.get(constants.CTA_TUPLE_ORIG, b""))
    if original is None or constants.CTA_TUPLE_REPLY not in fields:
        return None
    name = nest(constants.CTA_TUPLE_ORIG, fields[constants.CTA_TUPLE_ORIG])
    if constants.CTA_ZONE in fields:
        name += attribute(constants.CTA_ZONE, fields[constants.CTA_ZONE])
    return ConntrackEntry(payload[0], *original, name)


def addresses(tuple_: bytes) -> tuple[bytes, bytes] | None:
    """Returns source and destination of a tuple, packed; None if it has none."""
    ips = dict(attributes(dict(attributes(tuple_)).get(constants.CTA_TUPLE_IP, b"")))
    source, destination = (
        next((ips[kind] for kind in kinds if kind in ips), b"") for kinds in (_SOURCES, _DESTINATIONS)
    )
    return None if {len(source), len(destination)} - {4, 16} else (source, destination)


def request(command: int, flags: int, family: int, body: bytes, sequence: int = 0) -> bytes:
    """Writes a request to conntrack."""
    kind = constants.NFNL_SUBSYS_CTNETLINK << 8 | command
    length = NLMSG_HEADER.size + NFGENMSG.size + len(body)
    header = NLMSG_HEADER.pack(length, kind, flags | constants.NLM_F_REQUEST, sequence, 0)
    return header + NFGENMSG.pack(family, 0, 0) + body


def deletions(named: Sequence[tuple[int, bytes]]) -> bytes:
    """Writes the requests to delete these entries, by family and name. Their sequence numbers count from 1.

    The kernel answers to those that it refuses, and to the last.
    """
    last = len(named)
    return b"".join(
        request(constants.IPCTNL_MSG_CT_DELETE, constants.NLM_F_ACK if number == last else 0, family, name, number)
        for number, (family, name) in enumerate(named, start=1)
    )


def errno_of(error: bytes) -> int:
    """Reads the errno, with which struct nlmsgerr begins, negated."""
    (negated,) = struct.unpack_from("=i", error)
    return int(-negated)


def in_batches(named: Iterator[tuple[int, bytes]], size: int) -> Iterator[list[tuple[int, bytes]]]:
    """Divides into lists of this size; the last may be shorter."""
    batch = list[tuple[int, bytes]]()
    for each in named:
        batch.append(each)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
