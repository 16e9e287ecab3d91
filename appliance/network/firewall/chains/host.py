"""Renders the chain `host`: the services of the host that clients reach while private networks are blocked. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.chains.destinations import NAMES, PRIVATE, PROHIBITED, RESET, allowances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.rules import EgressRules, HostService

ECHO = {4: "icmp type echo-request", 6: "icmpv6 type echo-request"}


def chain(rules: EgressRules) -> Iterator[str]:
    """Lets through ping, port 53 and the open services, each where clients may reach it, and rejects all else.

    A rejection here is final: another table of the hook that accepts the packet, as one that trusts private sources
    would, does not bring it back.
    """
    yield "  chain host {"
    # Answers to what the host itself began; and ICMP errors, without which no answer fits a client's smaller path.
    yield "    ct state established ct direction reply return"
    yield "    meta l4proto { icmp, icmpv6 } ct state related return"
    for version, address in rules.tunnel.own.items():
        yield f"    {NAMES[version]} daddr {address} {ECHO[version]} return"
    for listener in rules.services.open:
        for where in _where_reached(listener, rules):
            yield f"    {where} tcp dport {listener.port} return"
    yield from allowances()
    for version, address in rules.tunnel.own.items():
        yield f"    {NAMES[version]} daddr {address} meta l4proto tcp {RESET}"
    yield f"    {PROHIBITED}"
    yield "  }"


def _where_reached(listener: HostService, rules: EgressRules) -> Iterator[str]:
    """Returns tests of the destinations at which clients reach a service: those at which the internet does, and the
    exit's address in the tunnel where the service listens there."""
    version = listener.address.version
    dialled = rules.services.dialled(version)
    family, own = NAMES[version], rules.tunnel.own.get(version)
    if own is None:
        return
    if not listener.everywhere:
        public = listener.address in (own, *dialled) or not any(listener.address in network for network in PRIVATE)
        # At a private address the internet reaches it through a NAT alone, and clients through the chain `reflection`.
        yield f"{family} daddr {listener.address}{'' if public else ' ct status dnat'}"
        return
    yield f"{family} daddr {own}"
    yield from (f"{family} daddr {address}" for address in dialled)
    if rules.services.public_ip is None or rules.services.public_ip.version != version:
        yield f"fib daddr type local {family} daddr != @private{version}"
