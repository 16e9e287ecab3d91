"""Renders the chain `private`, which decides on what clients send to private networks. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.network.firewall.chains.destinations import PROHIBITED, allowances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.network.firewall.rules import EgressRules


def chain(_: EgressRules) -> Iterator[str]:
    yield "  chain private {"
    yield from allowances()
    yield f"    {PROHIBITED}"
    yield "  }"
