"""Finds where other hosts would dial this one as a hub."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError, StoreUnavailable
from appliance.network import standing_note
from appliance.network.public_address import decide
from appliance.network.uplinks import look
from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from appliance.config.load import Settings

LOOK_S = 60.0


def dialled_here(settings: Settings, addresses: Path) -> tuple[str, IPv4Address | IPv6Address | None]:
    """Returns what other hosts dial, as HOST:PORT, and which address that is; None: a name, or what was configured.

    `addresses`: the file in which a server notes those in use. Raises HostError if there is nothing to dial.
    """
    port = str(settings.fleet.listen).rpartition(":")[2]
    if settings.fleet.advertise:
        return _with_port(settings.fleet.advertise, port), None
    if settings.fleet.listen.loopback:
        raise HostError(
            f"no other host can dial fleet.listen = {settings.fleet.listen}: set it to 0.0.0.0:{port}, or set "
            "fleet.advertise to what they dial"
        )
    address = settings.node.public_ip
    if address is None:
        standing = standing_note.read(addresses)
        standing = standing or decide(None, look(None, without=settings.wireguard.interface), None)
        if standing is None:
            raise HostError(
                "this host has no public address that others could dial: set node.public_ip, or fleet.advertise to a "
                f"name or an address with the port, such as hub.example.net:{port}"
            )
        address = standing.address
    return _with_port(str(address), port), address


def _with_port(named: str, port: str) -> str:
    """Adds the port to a name or an address that has none."""
    if named.count(":") > 1 and not named.startswith("["):
        return f"[{named}]:{port}"
    return named if ":" in named else f"{named}:{port}"


async def _nothing(_dialled: str) -> None:
    """Is for a host that is no hub: it tells its hub with what it asks."""


class OwnDialled:
    """Knows where this host would be dialled as a hub, for the fleet to be told.

    `find`: raises HostError where it has no program of nats-server, and `dialled` where it has no address. Blocking.
    `taken`: is given it after each look; may raise StoreUnavailable.
    """

    def __init__(self, dialled: Callable[[], str], find: Callable[[], object]) -> None:
        self._dialled = dialled
        self._find = find
        self._has_server = False  # it is looked for until it is found, as that reads all of it
        self.now = ""  # HOST:PORT; "": it cannot be a hub
        self.taken: Callable[[str], Awaitable[None]] = _nothing

    async def look(self) -> None:
        """Looks once."""
        self.now = await asyncio.to_thread(self._looked)

    def _looked(self) -> str:
        try:
            if not self._has_server:
                self._find()
                self._has_server = True
            return self._dialled()
        except HostError:
            return ""

    async def run(self, stopping: asyncio.Event) -> None:
        """Looks now and then until `stopping`."""
        while not stopping.is_set():
            await self.look()
            with suppress(StoreUnavailable):  # the tick says so
                await self.taken(self.now)
            await wait(stopping, LOOK_S)
