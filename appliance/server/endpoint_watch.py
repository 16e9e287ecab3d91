"""Follows what the host name that clients dial resolves to, in a background task."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address

LOOK_S = 60.0


def resolve(name: str) -> list[Address]:
    """Returns a name's addresses, sorted. Blocks for as long as the host's resolver takes. Raises OSError."""
    found = {str(each[4][0]) for each in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    return sorted((ip_address(text) for text in found if "%" not in text), key=lambda each: (each.version, int(each)))


class EndpointWatch:
    """Looks the name up every `interval_s`, and takes over what has changed. While it cannot be resolved, what it
    resolved to last stays."""

    def __init__(
        self,
        name: str,
        take_over: Callable[[Sequence[Address]], None],
        stopping: asyncio.Event,
        look_up: Callable[[str], list[Address]] = resolve,
        interval_s: float = LOOK_S,
    ) -> None:
        self._name = name
        self._take_over = take_over
        self._stopping = stopping
        self._look_up = look_up
        self._interval_s = interval_s
        self._known: list[Address] = []
        self._fault: str | None = None

    async def run(self) -> None:
        """Watches until `stopping`."""
        while not self._stopping.is_set():
            found = await self._resolved()
            if isinstance(found, OSError):
                self._report(str(found.strerror or found))
            elif found is not None:
                self._report(None)
                if found != self._known:
                    self._known = found
                    self._take_over(found)
            await wait(self._stopping, self._interval_s)

    def _report(self, fault: str | None) -> None:
        if fault is not None and fault != self._fault:
            log.warning("wireguard.endpoint %s cannot be resolved here: %s", self._name, fault)
        self._fault = fault

    async def _resolved(self) -> list[Address] | OSError | None:
        """Returns the addresses, or why there are none; None when `stopping` comes first.

        In a thread of its own that nothing waits for at the end: a resolver that does not answer may take a minute.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Address] | OSError] = loop.create_future()

        def ask() -> None:
            try:
                found: list[Address] | OSError = self._look_up(self._name)
            except (OSError, UnicodeError) as error:
                found = error if isinstance(error, OSError) else OSError(str(error))
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(lambda: None if answer.done() else answer.set_result(found))

        threading.Thread(target=ask, name="endpoint", daemon=True).start()
        stopped = asyncio.ensure_future(self._stopping.wait())
        awaited: set[asyncio.Future[Any]] = {answer, stopped}
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        return answer.result() if answer.done() else None
