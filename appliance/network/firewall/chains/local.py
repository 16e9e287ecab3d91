"""Renders the chains of packets to the host: what clients may not reach on the host itself. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.chains.destinations import NAMES, RESET, rejections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.rules import EgressRules, HostService


def chain(rules: EgressRules) -> Iterator[str]:
    """Limits what clients may reach on the host itself: with `private` to the services of the chain `host`."""
    yield "  chain to_host {"
    yield from rejections(rules.blocks)
    for closed in rules.services.closed:
        yield f"    {_destination(closed)} {RESET}"
    if rules.blocks.private:
        yield "    jump host"
    yield "  }"
    yield "  chain local {"
    yield "    type filter hook input priority filter; policy accept;"
    yield f'    iifname "{rules.tunnel.interface}" jump to_host'
    yield "  }"


def _destination(listener: HostService) -> str:
    version = listener.address.version
    where = f"meta nfproto ipv{version}" if listener.everywhere else f"{NAMES[version]} daddr {listener.address}"
    return f"{where} tcp dport {listener.port}"
