"""Renders the exit's nftables table as text for `nft -f`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.chains import (
    admission,
    answers,
    destinations,
    forward,
    host,
    icmp_errors,
    limits,
    local,
    nat,
    private,
    reflection,
    sources,
    transit,
)
from appliance.network.firewall.table_choice import FIRST

if TYPE_CHECKING:
    from appliance.network.firewall.rules import EgressRules

CHAINS = (sources, icmp_errors, reflection, admission, private, forward, transit, host, local, nat, limits, answers)


def render(rules: EgressRules, table: str = FIRST) -> str:
    """Renders the whole table: declares, deletes and creates it in one transaction, so that it is replaced at once."""
    return f"{remove(table)}\n{_declaration(rules, table)}"


def create(rules: EgressRules, table: str) -> str:
    """Renders the table's creation, which nft refuses if a table of this name stands."""
    return f"create table inet {table}\n{_declaration(rules, table)}"


def remove(table: str = FIRST) -> str:
    """Renders the table's removal. nft fails to delete a missing table, so declares it first."""
    return f"table inet {table} {{}}\ndelete table inet {table}\n"


def _declaration(rules: EgressRules, table: str) -> str:
    chains = [line for each in CHAINS for line in each.chain(rules)]
    sets = [*destinations.sets(rules), *icmp_errors.sets(rules)]
    return "\n".join([f"table inet {table} {{", *sets, *chains, "}", ""])
