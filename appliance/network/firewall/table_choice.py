"""Chooses the name of an appliance's nftables table: each appliance of a host has one of its own. Pure.

The first appliance of a host has the name by which operators' scripts know the table. A table tells whose it is by the
interface that its chain `sources` names, in every version.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST = "wg_appliance"
_OF_AN_APPLIANCE = re.compile(rf"{FIRST}(_[\w.-]+)?")
_SOURCES = re.compile(r"^\tchain sources \{$(.*?)^\t\}$", re.MULTILINE | re.DOTALL)
_NAMES = re.compile(r'"([^"]+)"')


class Recorded(NamedTuple):
    """Names the table that an appliance had, and its interface then."""

    table: str
    interface: str


def suffixed(interface: str) -> str:
    # What an interface may be called here (config/value_types, INTERFACE) is an identifier to nft too.
    return f"{FIRST}_{interface}"


def is_an_appliances(family: str, table: str) -> bool:
    """Tells whether this table is one of this or of another appliance, by its name."""
    return family == "inet" and _OF_AN_APPLIANCE.fullmatch(table) is not None


def candidates(interface: str, recorded: Recorded | None) -> tuple[str, ...]:
    """Returns the names that may be this appliance's, the preferred first."""
    known = () if recorded is None else (recorded.table,)
    return tuple(dict.fromkeys((*known, FIRST, suffixed(interface))))


def choose(interface: str, recorded: Recorded | None, listed: Mapping[str, str]) -> str | None:
    """Returns the name to use, None if there is none. `listed`: those of the candidates that stand, as nft lists them.

    A recorded table stays ours if what it says was taken away; it is not if it says another interface.
    """
    for name in candidates(interface, recorded):
        if name not in listed:
            return name
        named = _interfaces(listed[name])
        if recorded is not None and name == recorded.table and (not named or recorded.interface in named):
            return name
        if interface in named:
            return name
    return None


def _interfaces(listing: str) -> set[str]:
    chain = _SOURCES.search(listing)
    return set() if chain is None else set(_NAMES.findall(chain[1])) - {"lo"}
