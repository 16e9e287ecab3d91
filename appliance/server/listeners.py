"""Binds the sockets that the server listens on."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.network import sockets

if TYPE_CHECKING:
    import socket
    from contextlib import AsyncExitStack

    from appliance.config.load import HostPort, Settings, UnixPath


@dataclass(frozen=True, slots=True)
class Listeners:
    """Holds the bound sockets of the API, and those of the metrics: none if they are off."""

    api: list[socket.socket]
    metrics: list[socket.socket]


def bind(settings: Settings, stack: AsyncExitStack) -> Listeners:
    """Binds all of them; they are closed with `stack`. Raises HostError naming the setting of one that cannot be."""

    def bound(key: str, where: HostPort | UnixPath) -> socket.socket:
        # The tunnel's own address, at which clients inside it reach the API, exists only once the tunnel is up.
        listener = sockets.bind(key, where, later=settings.wireguard.own_addresses)
        stack.enter_context(closing(listener))
        stack.callback(sockets.unlink_unix, where)
        return listener

    metrics = settings.metrics.listen
    return Listeners(
        api=[bound("api.listen", each) for each in settings.api.listen],
        metrics=[] if metrics is None else [bound("metrics.listen", metrics)],
    )
