"""Begins a start: takes what only one server can have, and has the store checked from then on.

Imports little, so that the check begins before most of the program is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.server import listeners, opened_store
from appliance.server.hard_stop import hard_stop
from appliance.server.http.tls import Certificate
from appliance.server.stop_signals import catch_signals
from appliance.server.systemd import Systemd
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from contextlib import AsyncExitStack

    from appliance.config.load import Settings
    from appliance.server.listeners import Listeners


@dataclass(frozen=True, slots=True)
class Begun:
    """Holds what a start has before it looks at the host.

    `checked` raises StoreError, once it is awaited, if the store is damaged: nothing is written to it before.
    """

    settings: Settings
    state: StateDir
    listening: Listeners
    certificate: Certificate | None
    systemd: Systemd
    stopping: asyncio.Event
    reload_asked: asyncio.Event
    checked: asyncio.Future[None]


async def begin(read_settings: Callable[[], Settings], environ: Mapping[str, str], stack: AsyncExitStack) -> Begun:
    """Begins a start; what it takes is given back with `stack`. Raises ConfigError or HostError."""
    stopping, reload_asked = catch_signals()
    settings = read_settings()
    systemd, state = Systemd(environ), StateDir(settings.node.state_dir)
    state.create()
    stack.enter_context(hard_stop(stopping))  # first in, so last out: it limits the time of the whole shutdown
    stack.enter_context(state.serving())
    state.require_whole()
    listening, certificate = listeners.bind(settings, stack), _certificate(settings)
    systemd.status("starting: checking the store")
    checked = await stack.enter_async_context(opened_store.checking(state.store))
    return Begun(settings, state, listening, certificate, systemd, stopping, reload_asked, checked)


def _certificate(settings: Settings) -> Certificate | None:
    cert, key = settings.api.tls_cert, settings.api.tls_key
    return Certificate(cert, key) if cert and key else None
