"""Deletes clients' conntrack entries: flows that began without the nat rules, and flows of ended sessions. Blocking.

The kernel evaluates the nat rules for a flow's first packet only (net/netfilter/nf_nat_core.c, nf_nat_setup_info). A
flow that began without them keeps the client's own source address, to which replies cannot be routed, for as long as
it lasts. Once its entry is deleted, its next packet counts as a first one.

A flow outlives its session: late packets from the internet would reach the next client with the same address.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.network.netlink import constants
from appliance.network.netlink.codec import NLMSG_HEADER, attribute, attributes, messages, nest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

ANSWER_TIMEOUT_S = 5.0
# In empty buckets of its table that the kernel passes meanwhile, some 35 ns each.
READING_A_FLOW = 512
PASSING_A_FLOW = 6
_SYSCTLS = Path("/proc/sys/net/netfilter")
_BUFFER_SIZE = 64 * 1024
_NFGENMSG = struct.Struct("=BBH")  # family, version, resource
_SOURCES = (constants.CTA_IP_V4_SRC, constants.CTA_IP_V6_SRC)
_DESTINATIONS = (constants.CTA_IP_V4_DST, constants.CTA_IP_V6_DST)
_ENDS = (
    (constants.CTA_IP_V4_SRC, constants.CTA_IP_V6_SRC, constants.CTA_FILTER_F_IP_SRC),
    (constants.CTA_IP_V4_DST, constants.CTA_IP_V6_DST, constants.CTA_FILTER_F_IP_DST),
)


@dataclass(frozen=True, slots=True)
class Flow:
    """Identifies a flow. `answer_to`: destination of replies. `name`: the attributes that identify it to the kernel.

    `answer_port`: protocol and port of `answer_to`; `port`: of `destination`. Ports are 0 where a protocol has none.
    """

    family: int
    source: Address
    destination: Address
    answer_to: Address
    name: bytes
    answer_port: tuple[int, int] = (0, 0)
    port: int = 0

    @property
    def place(self) -> tuple[int, Address, int]:
        """Returns protocol, address and port to which it goes."""
        return self.answer_port[0], self.destination, self.port


def forget_untranslated(subnets: Sequence[Network]) -> int:
    """Deletes flows from these subnets without source NAT; returns how many. Raises OSError."""
    with _conntrack() as kernel:
        wanted = attribute(constants.CTA_STATUS, bytes(4))
        # Newer kernels filter out flows with a translated source, which are nearly all.
        wanted += attribute(constants.CTA_STATUS_MASK, constants.IPS_SRC_NAT.to_bytes(4, "big"))
        untranslated = [f for f in _flows(kernel, socket.AF_UNSPEC, wanted) if leaves_untranslated(f, subnets)]
        return _forget_each(kernel, untranslated)


def forget_translated(subnets: Sequence[Network], to: Collection[Address]) -> int:
    """Deletes flows from these subnets that leave with one of these addresses; returns how many. Raises OSError."""
    with _conntrack() as kernel:
        every = _flows(kernel, socket.AF_UNSPEC, b"")
        flows = [flow for flow in every if flow.answer_to in to and any(flow.source in subnet for subnet in subnets)]
        return _forget_each(kernel, flows)


def forget_of(addresses: Iterable[Address]) -> int:
    """Deletes flows from or to any of these addresses; returns how many. Raises OSError."""
    with _conntrack() as kernel:
        return _forget_each(kernel, _of(kernel, frozenset(addresses)))


def forget_others(subnets: Sequence[Network], held: Collection[Address]) -> int:
    """Deletes flows of subnet addresses that are not among `held`; returns how many. Raises OSError.

    The first host address of a subnet is the host's own and keeps its flows.
    """
    held = {*held, *(subnet[1] for subnet in subnets)}

    def forgotten(address: Address) -> bool:
        return address not in held and any(address in subnet for subnet in subnets)

    with _conntrack() as kernel:
        every = _flows(kernel, socket.AF_UNSPEC, b"")
        flows = [flow for flow in every if forgotten(flow.source) or forgotten(flow.destination)]
        return _forget_each(kernel, flows)


def forget_on_ports(subnets: Sequence[Network], ports: Collection[tuple[int, int]]) -> int:
    """Deletes flows from these subnets that leave from any of these host ports; returns how many. Raises OSError.

    `ports`: pairs of IP protocol and port.
    """
    wanted = frozenset(ports)

    def leaves_from_them(flow: Flow) -> bool:
        # Answers to the client's own address: a flow to the host itself, or to another client, that is not translated.
        translated = flow.answer_port in wanted and flow.answer_to != flow.source
        return translated and any(flow.source in subnet for subnet in subnets)

    with _conntrack() as kernel:
        return _forget_each(kernel, [flow for flow in _answered_at(kernel, wanted) if leaves_from_them(flow)])


def most_to_one_place(subnets: Sequence[Network]) -> dict[int, int]:
    """Counts flows from these subnets to one and the same address and port; returns the most by IP protocol.

    Raises OSError.
    """
    with _conntrack() as kernel:
        every = _flows(kernel, socket.AF_UNSPEC, b"")
        places = Counter(flow.place for flow in every if any(flow.source in subnet for subnet in subnets))
    most = dict[int, int]()
    for (protocol, _, _), flows in places.items():
        most[protocol] = max(most.get(protocol, 0), flows)
    return most


@contextmanager
def _conntrack() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, constants.NETLINK_NETFILTER) as kernel:
        kernel.settimeout(ANSWER_TIMEOUT_S)
        yield kernel


def _of(kernel: socket.socket, addresses: Collection[Address]) -> list[Flow]:
    if reading_all_is_quicker(len(addresses), *_table_size()):
        every = _flows(kernel, socket.AF_UNSPEC, b"")
        return [flow for flow in every if flow.source in addresses or flow.destination in addresses]
    flows = list[Flow]()
    for address in addresses:
        for version_4, version_6, field in _ENDS:
            flows += _at(kernel, address, version_4 if address.version == 4 else version_6, field)
    return flows


def reading_all_is_quicker(addresses: int, flows: int, buckets: int) -> bool:
    """Tells whether one full listing is faster than filtered listings by address.

    A listing walks the whole table, however many flows it shows: one for all, or one for each end of each address.
    """
    walks_saved = addresses * len(_ENDS) - 1
    return flows * READING_A_FLOW <= walks_saved * (buckets + flows * PASSING_A_FLOW)


def _table_size() -> tuple[int, int]:
    """Returns the number of flows of this network namespace, and of buckets of the table that all namespaces share.

    Returns 0 and 0 if they cannot be read: conntrack is not loaded yet (a listing loads it), or /proc is hidden.
    """
    try:
        flows, buckets = ((_SYSCTLS / f"nf_conntrack_{name}").read_text("ascii") for name in ("count", "buckets"))
    except OSError:
        return 0, 0
    return int(flows), int(buckets)


def _at(kernel: socket.socket, address: Address, end: int, field: int) -> list[Flow]:
    """Lists the flows with this address at either end.

    Linux 5.8 and later filter them; an earlier kernel ignores the filter and lists all flows.
    """
    wanted = nest(constants.CTA_TUPLE_ORIG, nest(constants.CTA_TUPLE_IP, attribute(end, address.packed)))
    wanted += nest(constants.CTA_FILTER, attribute(constants.CTA_FILTER_ORIG_FLAGS, field.to_bytes(4, sys.byteorder)))
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return [flow for flow in _flows(kernel, family, wanted) if address in (flow.source, flow.destination)]


def _answered_at(kernel: socket.socket, ports: Collection[tuple[int, int]]) -> list[Flow]:
    """Lists the flows whose answers come to these ports, and possibly others, as `_at` does."""
    if reading_all_is_quicker(len(ports), *_table_size()):
        return list(_flows(kernel, socket.AF_UNSPEC, b""))
    fields = constants.CTA_FILTER_F_PROTO_NUM | constants.CTA_FILTER_F_PROTO_DST_PORT
    which = nest(constants.CTA_FILTER, attribute(constants.CTA_FILTER_REPLY_FLAGS, fields.to_bytes(4, sys.byteorder)))
    flows = list[Flow]()
    for protocol, port in ports:
        end = attribute(constants.CTA_PROTO_NUM, bytes([protocol]))
        end += attribute(constants.CTA_PROTO_DST_PORT, port.to_bytes(2, "big"))
        wanted = nest(constants.CTA_TUPLE_REPLY, nest(constants.CTA_TUPLE_PROTO, end)) + which
        for family in (socket.AF_INET, socket.AF_INET6):
            flows += _flows(kernel, family, wanted)
    return flows


def leaves_untranslated(flow: Flow, subnets: Sequence[Network]) -> bool:
    def inside(address: Address) -> bool:
        return any(address in subnet for subnet in subnets)

    return flow.answer_to == flow.source and inside(flow.source) and not inside(flow.destination)


def _flows(kernel: socket.socket, family: int, wanted: bytes) -> Iterator[Flow]:
    _send(kernel, constants.IPCTNL_MSG_CT_GET, constants.NLM_F_DUMP, family, wanted)
    while True:
        for event in messages(kernel.recv(_BUFFER_SIZE)):
            if event.kind == constants.NLMSG_DONE:
                return
            if event.kind == constants.NLMSG_ERROR:
                if code := _errno(event.payload):
                    raise OSError(code, os.strerror(code))
            elif (flow := parse(event.payload)) is not None:
                yield flow


def parse(payload: bytes) -> Flow | None:
    """Parses a conntrack message after its header; None if it is not IP, or truncated."""
    fields = dict(attributes(payload[_NFGENMSG.size :]))
    original, reply = (
        _addresses(fields.get(kind, b"")) for kind in (constants.CTA_TUPLE_ORIG, constants.CTA_TUPLE_REPLY)
    )
    if original is None or reply is None:
        return None
    name = nest(constants.CTA_TUPLE_ORIG, fields[constants.CTA_TUPLE_ORIG])
    name += b"".join(attribute(kind, fields[kind]) for kind in (constants.CTA_ZONE, constants.CTA_ID) if kind in fields)
    answer_port, (_, port) = (_port(fields[kind]) for kind in (constants.CTA_TUPLE_REPLY, constants.CTA_TUPLE_ORIG))
    return Flow(payload[0], original[0], original[1], reply[1], name, answer_port, port)


def _port(tuple_: bytes) -> tuple[int, int]:
    """Returns protocol and destination port; 0 for what is not there."""
    fields = dict(attributes(dict(attributes(tuple_)).get(constants.CTA_TUPLE_PROTO, b"")))
    protocol = int.from_bytes(fields.get(constants.CTA_PROTO_NUM, b""), "big")
    return protocol, int.from_bytes(fields.get(constants.CTA_PROTO_DST_PORT, b""), "big")


def _addresses(tuple_: bytes) -> tuple[Address, Address] | None:
    """Returns source and destination."""
    ips = dict(attributes(dict(attributes(tuple_)).get(constants.CTA_TUPLE_IP, b"")))
    packed = [next((ips[kind] for kind in kinds if kind in ips), b"") for kinds in (_SOURCES, _DESTINATIONS)]
    if any(len(address) not in (4, 16) for address in packed):
        return None
    return ip_address(packed[0]), ip_address(packed[1])


def _forget_each(kernel: socket.socket, flows: Iterable[Flow]) -> int:
    """Deletes flows; returns how many still existed.

    Raises OSError, after trying all, if the kernel kept one (EBUSY: it is in a flow table).
    """
    answers = [_forget(kernel, flow) for flow in flows]
    # ENOENT: the flow has ended, or another flow has its addresses now.
    if refused := [code for code in answers if code not in (0, errno.ENOENT)]:
        raise OSError(refused[0], f"{len(refused)} of {len(answers)} connections are kept: {os.strerror(refused[0])}")
    return answers.count(0)


def _forget(kernel: socket.socket, flow: Flow) -> int:
    """Deletes one flow; returns the kernel's errno, 0 on success."""
    _send(kernel, constants.IPCTNL_MSG_CT_DELETE, constants.NLM_F_ACK, flow.family, flow.name)
    return next((_errno(e.payload) for e in messages(kernel.recv(_BUFFER_SIZE)) if e.kind == constants.NLMSG_ERROR), 0)


def _send(kernel: socket.socket, command: int, flags: int, family: int, body: bytes) -> None:
    kind = constants.NFNL_SUBSYS_CTNETLINK << 8 | command
    payload = _NFGENMSG.pack(family, 0, 0) + body
    header = NLMSG_HEADER.pack(NLMSG_HEADER.size + len(payload), kind, flags | constants.NLM_F_REQUEST, 0, 0)
    kernel.sendto(header + payload, (0, 0))


def _errno(error: bytes) -> int:
    """Reads the errno, with which struct nlmsgerr begins, negated."""
    (negated,) = struct.unpack_from("=i", error)
    return int(-negated)
