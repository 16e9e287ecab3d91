"""Tells whether an existing WireGuard interface is this appliance's: its private key is the server's. Pure.

The kernel and wireguard-go derive the public key from the private one, so the public keys are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from appliance.network.wireguard.keys import encode

if TYPE_CHECKING:
    from appliance.network.wireguard.tunnel import Dump, Link, Prefix

NO_KEY = bytes(32)  # what a dump has where the device has no private key


@dataclass(frozen=True, slots=True)
class OwnMarks:
    """Holds what this appliance sets on its interface. `public_keys`: server.key's, and those it had before."""

    public_keys: frozenset[bytes]
    listen_port: int
    addresses: frozenset[Prefix]


def is_empty(dump: Dump) -> bool:
    """Tells whether the device has neither key nor peers, as after its creation."""
    return dump.public_key == NO_KEY and not dump.peers


def foreign(link: Link, dump: Dump, own: OwnMarks, random_ports: range) -> str | None:
    """Returns what shows that the interface is another program's; None if it is ours, or nothing is set on it.

    `random_ports`: those that the device may have chosen by itself.
    """
    if dump.public_key in own.public_keys:
        return None
    if dump.public_key != NO_KEY:
        return f"its public key is {encode(dump.public_key)}, not that of server.key"
    if dump.peers:
        return f"it has no key, and {len(dump.peers)} peers"
    if others := sorted(link.addresses - own.addresses):
        return f"it has no key, and the address {ip_address(others[0].address)}/{others[0].length}"
    if dump.listen_port not in (0, own.listen_port) and dump.listen_port not in random_ports:
        return f"it has no key, and listens on port {dump.listen_port}"
    return None


def refusal(interface_name: str, shown: str) -> str:
    """Returns the message for an interface of another program. `shown`: the result of `foreign`."""
    return (
        f"wireguard.interface {interface_name}: an interface of this name is there that is not ours: {shown}; it is "
        f"left alone: remove it (ip link del {interface_name}) or set wireguard.interface to another name"
    )
