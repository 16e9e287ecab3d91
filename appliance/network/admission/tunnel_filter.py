"""Defines the filter that drops what enters the tunnel without the table's mark. Pure: bytes in and out.

It stands at the interface's egress (tc-clsact: qdisc and hook), which a flush of the firewall does not touch, and is a
classic BPF program (tc-bpf(8)): it needs the kernel's cls_bpf and no module for actions.
"""

from __future__ import annotations

import struct
import sys

from appliance.network.netlink import constants
from appliance.network.netlink.codec import attribute, attributes, nest

# linux/rtnetlink.h, struct tcmsg: family, padded; ifindex, handle, parent, info
_HEADER = struct.Struct("=B3xiIII")
# linux/filter.h, struct sock_filter: code, jump if true, jump if false, constant
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_ABSOLUTE, _AND, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06  # BPF_LD|W|ABS, ALU|AND|K, JMP|JEQ|K, RET|K
_AF_UNSPEC = 0
_KIND = b"bpf\0"
_PREFERENCE = 1  # it decides first
_HANDLE = 1
# The protocol in network order.
_INFO = _PREFERENCE << 16 | int.from_bytes(constants.ETH_P_ALL.to_bytes(2, "big"), sys.byteorder)


def program(mark: int) -> bytes:
    """Returns the program: packets with the mark pass, others are dropped."""
    instructions = (
        (_LOAD_ABSOLUTE, 0, 0, constants.SKF_AD_MARK),
        (_AND, 0, 0, mark),
        (_JUMP_IF_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, constants.TC_ACT_OK),
        (_RETURN, 0, 0, constants.TC_ACT_SHOT),
    )
    return b"".join(_INSTRUCTION.pack(*each) for each in instructions)


def queueing(ifindex: int) -> bytes:
    """Renders the body of a request to add the clsact qdisc, on which filters stand."""
    header = _HEADER.pack(_AF_UNSPEC, ifindex, constants.TC_H_CLSACT & 0xFFFF0000, constants.TC_H_CLSACT, 0)
    return header + attribute(constants.TCA_KIND, b"clsact\0")


def place(ifindex: int, info: int = _INFO) -> bytes:
    """Renders the body of a request that names the filter, or with `info` 0 lists all at the interface's egress."""
    return _HEADER.pack(_AF_UNSPEC, ifindex, 0, constants.TC_H_CLSACT_EGRESS, info)


def encode(ifindex: int, mark: int) -> bytes:
    """Renders the body of a request to add or replace the filter."""
    operations = program(mark)
    header = _HEADER.pack(_AF_UNSPEC, ifindex, _HANDLE, constants.TC_H_CLSACT_EGRESS, _INFO)
    options = nest(
        constants.TCA_OPTIONS,
        attribute(constants.TCA_BPF_OPS_LEN, struct.pack("=H", len(operations) // _INSTRUCTION.size)),
        attribute(constants.TCA_BPF_OPS, operations),
        attribute(constants.TCA_BPF_NAME, b"wg-appliance\0"),
        attribute(constants.TCA_BPF_FLAGS, struct.pack("=I", constants.TCA_BPF_FLAG_ACT_DIRECT)),
    )
    return header + attribute(constants.TCA_KIND, _KIND) + options


def is_in_place(payload: bytes, mark: int) -> bool:
    """Tells whether a filter, as the kernel lists it, is ours with this mark, and decides first."""
    if len(payload) < _HEADER.size or _HEADER.unpack_from(payload)[4] != _INFO:
        return False
    fields = dict(attributes(payload[_HEADER.size :]))
    options = dict(attributes(fields.get(constants.TCA_OPTIONS, b"")))
    return fields.get(constants.TCA_KIND) == _KIND and options.get(constants.TCA_BPF_OPS) == program(mark)
