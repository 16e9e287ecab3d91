"""Removes what a self-test has on the host, or a killed one has left.

Its network namespaces end with its process; with the userspace backend, its wireguard-go does not, and keeps them.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from appliance.client.tunnel import links
from appliance.network.wireguard.wireguard_go import end_wireguard_go

if TYPE_CHECKING:
    from appliance.ops.selftest.plan import Names


def clear(names: Names) -> None:
    """Removes links and wireguard-go. Missing ones are not an error."""
    with ExitStack() as all_of_it:
        # Callbacks run in the opposite order, all of them even if one fails.
        all_of_it.callback(links.remove, names.target_link)
        all_of_it.callback(links.remove, names.client_link)
        all_of_it.callback(end_wireguard_go, names.tunnel)
