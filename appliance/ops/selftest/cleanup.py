"""What a self-test has on the host, and a killed one leaves there.

Its network namespaces end with its process; on the userspace backend its wireguard-go does not, and holds them.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from appliance.client.tunnel import links
from appliance.client.tunnel.device import end_wireguard_go

if TYPE_CHECKING:
    from appliance.ops.selftest.plan import Names


def clear(names: Names) -> None:
    """None is no error."""
    with ExitStack() as all_of_it:
        # Run in the opposite order, and one that fails keeps none of the others from it.
        all_of_it.callback(links.remove, names.target_link)
        all_of_it.callback(links.remove, names.client_link)
        all_of_it.callback(end_wireguard_go, names.tunnel)
