"""Writes and reads netlink messages and attributes as bytes; no sockets here.

A message is a header of 16 bytes (linux/netlink.h, struct nlmsghdr) and a payload; an attribute is `u16 length,
u16 type, payload`. Both are padded to four bytes, and both lengths count header and payload without the padding, so a
nest can hold 64 KiB at most. All numbers of the headers are in host order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.errors import TunnelError
from appliance.network.netlink import constants

if TYPE_CHECKING:
    from collections.abc import Iterator

NLMSG_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port id
GENLMSG_HEADER = struct.Struct("=BBxx")  # command, version
NLA_HEADER = struct.Struct("=HH")  # length, type


@dataclass(frozen=True, slots=True)
class Event:
    """Holds one message from the kernel.

    `port`: the netlink port of the process that caused it; 0: the kernel itself. `sequence`: that of the request which
    it answers.
    """

    kind: int
    port: int
    payload: bytes
    flags: int = 0
    sequence: int = 0


def attribute(kind: int, payload: bytes) -> bytes:
    """Writes one attribute with its padding.

    Raises ValueError if it does not fit the 16-bit length.
    """
    length = NLA_HEADER.size + len(payload)
    if length > 0xFFFF:
        raise ValueError(f"a netlink attribute of {length} bytes")
    return NLA_HEADER.pack(length, kind) + payload + bytes(-length % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """Writes an attribute that holds these attributes.

    Raises ValueError if they do not fit the 16-bit length.
    """
    return attribute(kind | constants.NLA_F_NESTED, b"".join(attributes))


def message(kind: int, flags: int, seq: int, command: int, version: int, body: bytes) -> bytes:
    """Writes a whole generic-netlink request. The port id stays 0: the kernel knows the socket."""
    payload = GENLMSG_HEADER.pack(command, version) + body
    header = NLMSG_HEADER.pack(NLMSG_HEADER.size + len(payload), kind, flags | constants.NLM_F_REQUEST, seq, 0)
    return header + payload


def messages(data: bytes, *, strict: bool = False) -> Iterator[Event]:
    """Reads the messages of one datagram.

    A length shorter than the header ends it, and a payload that is cut short is given as far as it goes. Where
    `strict`, each raises TunnelError instead.
    """
    while len(data) >= NLMSG_HEADER.size:
        length, kind, flags, sequence, port = NLMSG_HEADER.unpack_from(data)
        if strict and not NLMSG_HEADER.size <= length <= len(data):
            raise TunnelError("a netlink answer with a wrong length")
        if length < NLMSG_HEADER.size:
            return
        yield Event(kind, port, data[NLMSG_HEADER.size : length], flags, sequence)
        data = data[(length + 3) & ~3 :]


def attributes(data: bytes, *, strict: bool = False) -> Iterator[tuple[int, bytes]]:
    """Reads (type, payload) of each attribute.

    One with a wrong length ends it; where `strict`, it raises TunnelError instead.
    """
    while len(data) >= NLA_HEADER.size:
        length, kind = NLA_HEADER.unpack_from(data)
        if not NLA_HEADER.size <= length <= len(data):
            if strict:
                raise TunnelError("a netlink attribute with a wrong length")
            return
        yield kind & constants.NLA_TYPE_MASK, data[NLA_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def text_attribute(payload: bytes, header_size: int, wanted: int) -> str:
    """Reads the text of one attribute behind a header of `header_size` bytes; empty where it is not there."""
    texts = (value for kind, value in attributes(payload[header_size:]) if kind == wanted)
    return next(texts, b"").rstrip(b"\0").decode("utf-8", "replace")
