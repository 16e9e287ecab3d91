"""Names the sysctls of interfaces, as paths below /proc/sys, and their values. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def of_any(name: str) -> str | None:
    """Returns the interface whose sysctl this is, of whatever key; None if it is none of one interface."""
    net, _, rest = name.partition("/conf/")
    interface, _, key = rest.partition("/")
    is_one = net in ("net/ipv4", "net/ipv6") and key and "/" not in key and interface not in NO_INTERFACES
    return interface if is_one and NAMEABLE.fullmatch(interface) else None


def renamed(name: str, interfaces: Mapping[str, str]) -> str:
    """Returns the path of a sysctl after its interface was renamed. `interfaces`: new names by old ones."""
    interface = of_any(name)
    if interface is None or interface not in interfaces:
        return name
    return name.replace(f"/conf/{interface}/", f"/conf/{interfaces[interface]}/")
