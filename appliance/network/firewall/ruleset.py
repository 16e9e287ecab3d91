"""Renders the exit's nftables table as text for `nft -f`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.chains import admission, destinations, forward, icmp_errors, local, nat, sources

if TYPE_CHECKING:
    from appliance.network.firewall.rules import EgressRules

TABLE = "wg_appliance"
CHAINS = (sources, icmp_errors, admission, forward, local, nat)


def render(rules: EgressRules) -> str:
    """Renders the whole table: declares, deletes and creates it in one transaction, so that it is replaced at once."""
    chains = [line for each in CHAINS for line in each.chain(rules)]
    sets = [*destinations.sets(rules.blocks), *icmp_errors.sets(rules)]
    return "\n".join([remove(), f"table inet {TABLE} {{", *sets, *chains, "}", ""])


def remove() -> str:
    """Renders the table's removal. nft fails to delete a missing table, so declares it first."""
    return f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"
