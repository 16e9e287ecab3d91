"""Tells whether a tunnel to the same exit is up already: the exit does not let a tunnel through its own tunnel."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.client.tunnel.links import tunnel_to
from appliance.domain.errors import ApplianceError, HostError
from appliance.network.wireguard.backend import dump_existing

if TYPE_CHECKING:
    from collections.abc import Container

    from appliance.client.tunnel.wg_config import SessionConfig


def refuse(config: SessionConfig) -> None:
    """Raises HostError if packets to the exit would leave by a tunnel whose peer is this exit."""
    interface = tunnel_to(str(config.host))
    if interface is not None and config.server_key in _peers(interface):
        raise HostError(
            f"{interface} is a tunnel to the same exit, which would have to carry the new one; end it first: "
            f"wg-quick down {interface}"
        )


def _peers(interface: str) -> Container[bytes]:
    with suppress(ApplianceError):  # another kind of tunnel, which is none of ours to ask
        return dump_existing(interface).peers
    return ()
