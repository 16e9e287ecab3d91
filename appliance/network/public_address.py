"""Decides which address clients are told, and with which their packets leave by each interface. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.network.firewall.rules import Translation
from appliance.network.wireguard import tunnel_mtu

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from ipaddress import IPv4Address, IPv6Address

    from appliance.network.uplinks import HostView, Uplink

    Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Standing:
    """Describes how the exit stands on its host. `address`: what clients are told; `owned`: it is the host's own.

    `ways`: the interface by which each IP version leaves; where it has none now, the last one. `tunnel_mtu`: what
    these leave for the tunnel.
    """

    address: Address
    owned: bool
    translation: Translation
    ways: Mapping[int, str] = field(default_factory=dict)
    tunnel_mtu: int = tunnel_mtu.MOST


def decide(configured: Address | None, view: HostView, last: Standing | None) -> Standing | None:
    """Returns how the exit stands; None without an address to tell.

    `view` is of the configured address, without one of the last.
    """
    address = configured or automatic(view.uplinks, view.own, None if last is None else last.address)
    if address is None:
        return None
    ways = {} if last is None else dict(last.ways)
    ways |= {version: uplink.interface for version, uplink in view.uplinks.items()}
    return Standing(address, address in view.own, Translation(tuple(_sources(address, view))), ways, _mtu(view, last))


def _mtu(view: HostView, last: Standing | None) -> int:
    if last is not None and not view.uplinks:
        return last.tunnel_mtu
    return tunnel_mtu.fitting(uplink.mtu for uplink in view.uplinks.values())


def automatic(uplinks: Mapping[int, Uplink], own: Collection[Address], last: Address | None) -> Address | None:
    """Returns the address that the host sends to the internet from: IPv4 if there is one, else IPv6.

    While it has none the last one stays. So it does while only its route is missing: IPv6 is no substitute that all
    clients can dial.
    """
    found = next((uplink.address for uplink in uplinks.values() if uplink.address is not None), None)
    if last is None or (found is not None and (found.version <= last.version or last not in own)):
        return found
    return last


def _sources(address: Address, view: HostView) -> Iterator[tuple[str, Address]]:
    """Yields (interface, address to leave with), one of each IP version for an interface."""
    sender = view.uplinks.get(address.version)
    sending = (sender.interface,) if sender is not None and sender.address == address else ()
    places = dict.fromkeys((*sending, *(view.places if view.asked == address else ())))
    yield from ((name, address) for name in places)
    # Masquerade chooses anew for each flow (RFC 6724), a privacy address before one that lasts.
    six = view.uplinks.get(6)
    if six is not None and six.address is not None and not (address.version == 6 and six.interface in places):
        yield six.interface, six.address


def abandoned(before: Standing, now: Standing, own: Collection[Address]) -> frozenset[Address]:
    """Returns the addresses whose flows cannot go on: those that are gone, or whose interface is left now.

    Of those that were translated to. Masqueraded flows the kernel ends itself when the address goes, or the interface
    is another (net/netfilter/nf_nat_masquerade.c; nf_nat_core.c, nf_nat_oif_changed). An address that is still there
    carries on what has begun with it.
    """
    left = {(version, name) for version, name in before.ways.items() if now.ways.get(version) != name}
    return frozenset(
        address
        for name, address in before.translation.by_interface
        if address not in own or (address.version, name) in left
    )


def changes_in_words(before: Standing, now: Standing) -> Iterator[str]:
    """Yields a line for each change that concerns an operator."""
    if now.address != before.address:
        yield (
            f"the public address is {now.address} now, it was {before.address}: new sessions are told so, "
            "those that are open keep what they were told"
        )
    elif now.owned != before.owned:
        what = "is this host's own now" if now.owned else "is no address of this host any more"
        yield f"the public address {now.address} {what}"
    if now.translation != before.translation:
        yield f"clients' packets leave {in_words(now.translation)}"


def in_words(translation: Translation) -> str:
    """Says with which addresses packets leave."""
    addresses: dict[str, list[str]] = {}
    for name, address in translation.by_interface:
        addresses.setdefault(name, []).append(str(address))
    each = [f"by {name} with {' or '.join(listed)}" for name, listed in addresses.items()]
    return ", ".join([*each, "by any other interface with its own address" if each else "with the interface's own"])
