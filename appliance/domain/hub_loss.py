"""Words what can be done where a fleet's hub is lost. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PROMOTE = "wg-appliance fleet promote"


def succession(hub: str, standbys: Sequence[str], this_host: str) -> str:
    """Returns a sentence that says how another host becomes the hub; "" where none can. All are hosts' names."""
    if not standbys:
        return ""
    if len(standbys) > 1:  # they are hubs beside it
        names = ", ".join([hub, *standbys])
        return (
            f"another of {names} leads by itself while most are there; if they are lost, {PROMOTE} on one that is left"
        )
    if this_host in standbys:
        return f"if {hub} is lost, {PROMOTE} makes this host the hub"
    return f"if {hub} is lost, {PROMOTE} on {standbys[0]} makes that host the hub"
