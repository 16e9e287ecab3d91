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
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.network.firewall import conntrack_entries
from appliance.network.netlink import constants
from appliance.network.netlink.codec import attribute, attributes, messages, nest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from appliance.network.firewall.conntrack_entries import ConntrackEntry

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

ANSWER_TIMEOUT_S = 5.0
# In empty buckets of its table that the kernel passes meanwhile, some 35 ns each.
READING_A_FLOW = 512
PASSING_A_FLOW = 6
_SYSCTLS = Path("/proc/sys/net/netfilter")
_BUFFER_SIZE = 64 * 1024
# Entries that one system call deletes: the answers, if the kernel refuses all, fit its default buffer (net.core.
# rmem_default), in which each takes a kilobyte at most.
_BATCH = 128
# After each datagram: a thread that waits for the interpreter's lock gets it now, and else, though a system call gives
# it free, mostly not before the switch interval of 5 ms (PEP 311; CPython, Python/ceval_gil.c).
_LET_OTHERS_S = 0.0003
_ENDS = (
    (constants.CTA_IP_V4_SRC, constants.CTA_IP_V6_SRC, constants.CTA_FILTER_F_IP_SRC),
    (constants.CTA_IP_V4_DST, constants.CTA_IP_V6_DST, constants.CTA_FILTER_F_IP_DST),
)
_CLOSED = (constants.TCP_CONNTRACK_TIME_WAIT, constants.TCP_CONNTRACK_CLOSE)


@dataclass(frozen=True, slots=True)
class Flow:
    """Identifies a flow. `answer_to`: destination of replies. `name`: the attributes that identify it to the kernel.

    `answer_port`: protocol and port of `answer_to`; `port`: of `destination`. Ports are 0 where a protocol has none.
    `closed`: a TCP connection that has ended.
    """

    family: int
    source: Address
    destination: Address
    answer_to: Address
    name: bytes
    answer_port: tuple[int, int] = (0, 0)
    port: int = 0
    closed: bool = False

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
        every = _flows(kernel, socket.AF_UNSPEC, wanted)
        untranslated = [(flow.family, flow.name) for flow in every if leaves_untranslated(flow, subnets)]
        return _forget_each(kernel, iter(untranslated))


def forget_translated(subnets: Sequence[Network], to: Collection[Address]) -> int:
    """Deletes flows from these subnets that leave with one of these addresses; returns how many. Raises OSError."""
    with _conntrack() as kernel:
        every = _flows(kernel, socket.AF_UNSPEC, b"")
        flows = [flow for flow in every if flow.answer_to in to and any(flow.source in subnet for subnet in subnets)]
        return _forget_each(kernel, ((flow.family, flow.name) for flow in flows))


def forget_of(addresses: Iterable[Address]) -> int:
    """Deletes flows from or to any of these addresses; returns how many. Raises OSError."""
    wanted = frozenset(addresses)
    with _conntrack() as kernel, _conntrack() as deleting:
        return _forget_each(deleting, ((entry.family, entry.name) for entry in _of(kernel, wanted)))


def forget_others(subnets: Sequence[Network], held: Collection[Address]) -> int:
    """Deletes flows of subnet addresses that are not among `held`; returns how many. Raises OSError.

    `held`: a collection with fast membership tests. The first host address of a subnet is the host's own and keeps its
    flows.
    """
    own = {subnet[1].packed for subnet in subnets}

    def forgotten(packed: bytes) -> bool:
        return is_inside(packed, subnets) and packed not in own and ip_address(packed) not in held

    with _conntrack() as kernel, _conntrack() as deleting:
        every = entries(kernel)
        others = ((e.family, e.name) for e in every if forgotten(e.source) or forgotten(e.destination))
        return _forget_each(deleting, others)


def begun_from(subnets: Sequence[Network]) -> Iterator[ConntrackEntry]:
    """Returns the flows that addresses of these subnets began. Raises OSError."""
    with _conntrack() as kernel:
        yield from (entry for entry in entries(kernel) if is_inside(entry.source, subnets))


def flows_from(packed: Iterable[bytes]) -> Iterator[Flow]:
    """Returns the flows that these addresses began. Raises OSError."""
    with _conntrack() as kernel:
        for address in map(ip_address, packed):
            end = constants.CTA_IP_V4_SRC if address.version == 4 else constants.CTA_IP_V6_SRC
            found = _flows(kernel, *_with_end(address, end, constants.CTA_FILTER_F_IP_SRC))
            yield from (flow for flow in found if flow.source == address)


def forget_flows(flows: Iterable[Flow]) -> int:
    """Deletes flows; returns how many still existed. Raises OSError."""
    with _conntrack() as kernel:
        return _forget_each(kernel, ((flow.family, flow.name) for flow in flows))


def is_inside(packed: bytes, subnets: Sequence[Network]) -> bool:
    """Tells whether a packed address is in one of the subnets."""
    number, bits = int.from_bytes(packed, "big"), 8 * len(packed)
    return any(
        subnet.max_prefixlen == bits and (number ^ int(subnet.network_address)) >> (bits - subnet.prefixlen) == 0
        for subnet in subnets
    )


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
        flows = [flow for flow in _answered_at(kernel, wanted) if leaves_from_them(flow)]
        return _forget_each(kernel, ((flow.family, flow.name) for flow in flows))


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


def _of(kernel: socket.socket, addresses: Collection[Address]) -> Iterator[ConntrackEntry]:
    if reading_all_is_quicker(len(addresses), *_table_size()):
        packed = {address.packed for address in addresses}
        yield from (entry for entry in entries(kernel) if entry.source in packed or entry.destination in packed)
        return
    for address in addresses:
        for version_4, version_6, field in _ENDS:
            yield from _at(kernel, address, version_4 if address.version == 4 else version_6, field)


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


def _at(kernel: socket.socket, address: Address, end: int, field: int) -> Iterator[ConntrackEntry]:
    """Lists the flows with this address at either end.

    Linux 5.8 and later filter them; an earlier kernel ignores the filter and lists all flows.
    """
    packed = address.packed
    listed = entries(kernel, *_with_end(address, end, field))
    return (entry for entry in listed if packed in (entry.source, entry.destination))


def _with_end(address: Address, end: int, field: int) -> tuple[int, bytes]:
    """Returns family and attributes of a request for the flows with this address at an end."""
    wanted = nest(constants.CTA_TUPLE_ORIG, nest(constants.CTA_TUPLE_IP, attribute(end, address.packed)))
    wanted += nest(constants.CTA_FILTER, attribute(constants.CTA_FILTER_ORIG_FLAGS, field.to_bytes(4, sys.byteorder)))
    return (socket.AF_INET if address.version == 4 else socket.AF_INET6), wanted


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


def entries(kernel: socket.socket, family: int = socket.AF_UNSPEC, wanted: bytes = b"") -> Iterator[ConntrackEntry]:
    """Lists conntrack's entries. Raises OSError."""
    for datagram in _listing(kernel, family, wanted):
        found, ended = conntrack_entries.read(datagram)
        yield from found
        if ended:
            return


def _flows(kernel: socket.socket, family: int, wanted: bytes) -> Iterator[Flow]:
    for datagram in _listing(kernel, family, wanted):
        for event in messages(datagram):
            if event.kind == constants.NLMSG_DONE:
                return
            if event.kind == constants.NLMSG_ERROR:
                if code := conntrack_entries.errno_of(event.payload):
                    raise OSError(code, os.strerror(code))
            elif (flow := parse(event.payload)) is not None:
                yield flow


def _listing(kernel: socket.socket, family: int, wanted: bytes) -> Iterator[bytes]:
    command, flags = constants.IPCTNL_MSG_CT_GET, constants.NLM_F_DUMP
    kernel.sendto(conntrack_entries.request(command, flags, family, wanted), (0, 0))
    while True:
        yield kernel.recv(_BUFFER_SIZE)
        time.sleep(_LET_OTHERS_S)


def parse(payload: bytes) -> Flow | None:
    """Parses a conntrack message after its header; None if it is not IP, or truncated."""
    fields = dict(attributes(payload[conntrack_entries.NFGENMSG.size :]))
    original, reply = (
        conntrack_entries.addresses(fields.get(kind, b""))
        for kind in (constants.CTA_TUPLE_ORIG, constants.CTA_TUPLE_REPLY)
    )
    if original is None or reply is None:
        return None
    name = nest(constants.CTA_TUPLE_ORIG, fields[constants.CTA_TUPLE_ORIG])
    name += b"".join(attribute(kind, fields[kind]) for kind in (constants.CTA_ZONE, constants.CTA_ID) if kind in fields)
    source, destination, answer_to = (ip_address(each) for each in (*original, reply[1]))
    answer_port, (_, port) = (_port(fields[kind]) for kind in (constants.CTA_TUPLE_REPLY, constants.CTA_TUPLE_ORIG))
    closed = _tcp_state(fields.get(constants.CTA_PROTOINFO, b"")) in _CLOSED
    return Flow(payload[0], source, destination, answer_to, name, answer_port, port, closed)


def _tcp_state(protocol_info: bytes) -> int | None:
    tcp = dict(attributes(dict(attributes(protocol_info)).get(constants.CTA_PROTOINFO_TCP, b"")))
    return next(iter(tcp.get(constants.CTA_PROTOINFO_TCP_STATE, b"")), None)


def _port(tuple_: bytes) -> tuple[int, int]:
    """Returns protocol and destination port; 0 for what is not there."""
    fields = dict(attributes(dict(attributes(tuple_)).get(constants.CTA_TUPLE_PROTO, b"")))
    protocol = int.from_bytes(fields.get(constants.CTA_PROTO_NUM, b""), "big")
    return protocol, int.from_bytes(fields.get(constants.CTA_PROTO_DST_PORT, b""), "big")


def _forget_each(kernel: socket.socket, named: Iterator[tuple[int, bytes]]) -> int:
    """Deletes entries, given by family and name; returns how many still existed.

    Raises OSError, after trying all, if the kernel kept one (EBUSY: it is in a flow table).
    """
    tried, answers = 0, list[int]()
    for batch in conntrack_entries.in_batches(named, _BATCH):
        tried += len(batch)
        answers += _delete(kernel, batch)
    # ENOENT: the flow has ended, or another flow has its addresses now.
    if refused := [code for code in answers if code != errno.ENOENT]:
        raise OSError(refused[0], f"{len(refused)} of {tried} connections are kept: {os.strerror(refused[0])}")
    return tried - len(answers)


def _delete(kernel: socket.socket, batch: Sequence[tuple[int, bytes]]) -> list[int]:
    """Deletes entries in one system call; returns the errnos of those that the kernel refused."""
    time.sleep(_LET_OTHERS_S)
    kernel.sendto(conntrack_entries.deletions(batch), (0, 0))
    refused = list[int]()
    while True:
        for event in messages(kernel.recv(_BUFFER_SIZE)):
            if event.kind != constants.NLMSG_ERROR:
                continue
            if code := conntrack_entries.errno_of(event.payload):
                refused.append(code)
            if event.sequence == len(batch):
                return refused
