"""Names the sysctls of interfaces, as paths below /proc/sys, and their values. Pure."""

from __future__ import annotations

import re

FORWARDING = "forwarding"
OFF, ON = "0", "1"
NO_INTERFACES = ("all", "default")
# The kernel allows quotes and asterisks too, which nftables cannot read or takes for a pattern.
NAMEABLE = re.compile(r"[\w.:@=+%-]{1,15}")


def of_interface(version: int, interface: str, key: str = FORWARDING) -> str:
    return f"net/ipv{version}/conf/{interface}/{key}"


def interface_of(name: str, version: int, key: str = FORWARDING) -> str | None:
    """Returns the interface whose `key` a sysctl is; None if it is none of one that nftables can name."""
    prefix, _, last = name.rpartition("/")
    head, _, interface = prefix.rpartition("/")
    is_one = (head, last) == (f"net/ipv{version}/conf", key) and interface not in NO_INTERFACES
    return interface if is_one and NAMEABLE.fullmatch(interface) else None
