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
    if this_host in standbys:
        return f"if {hub} is lost, {PROMOTE} makes this host the hub"
    return f"if {hub} is lost, {PROMOTE} on {' or '.join(standbys)} makes that host the hub"
