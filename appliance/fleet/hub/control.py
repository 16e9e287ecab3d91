"""Keeps a hub's nats-server to the directory of members: writes its files, and has it read them again.

It is asked by a request to its system account, not by a signal: under the unit it is another user's process, and its
answer, which comes after the reload, says whether it has taken the configuration over.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from appliance.domain.errors import FleetError, NotAnswered
from appliance.fleet.hub import certificates
from appliance.fleet.hub import config as hub_config
from appliance.fleet.hub.cluster import host_of
from appliance.fleet.hub.watch import UserConnection  # noqa: TC001 (msgspec reads annotations at run time)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.fleet.hub.certificates import CertifiedKey
    from appliance.fleet.hub.config import HubSettings
    from appliance.fleet.hub.files import HubFiles
    from appliance.fleet.link.wire import HubLink

log = logging.getLogger(__name__)

WITHIN_S = 5.0
WHO = "$SYS.REQ.SERVER.PING"  # of several hubs, the one that is named answers


@dataclass(frozen=True, slots=True)
class MadeBy:
    """Holds what a hub's certificate is made by, when (ms), and the authorities that others' are trusted by (PEM)."""

    authority: CertifiedKey
    trusted: str
    now: int


class _Connections(msgspec.Struct):
    connections: list[UserConnection] = []


class _Connz(msgspec.Struct):
    data: _Connections = msgspec.field(default_factory=_Connections)


class HubControl:
    """Has settings taken over. `system`: the hub's link in the account SYS; `find`: returns nats-server's program.

    `restart`: has the server end, and start anew.
    """

    def __init__(
        self, files: HubFiles, find: Callable[[], Path], system: HubLink, restart: Callable[[], None] = lambda: None
    ) -> None:
        self._files = files
        self._find = find
        self._system = system
        self._restart = restart
        self._settled = False  # what is written is in force
        self._good: str | None = None  # the last that was
        self._one_at_a_time = asyncio.Lock()

    async def apply(self, settings: HubSettings, made: MadeBy | None = None) -> None:
        """Writes the configuration if it differs, and returns when the server goes by it. Repeat it after a failure.

        Where the server has to be started anew for it, it gets a new certificate, too, if `made` is given.
        Raises FleetError: the old one stays in force. Raises CutOff or NotAnswered: it is written, and the server does
        not answer; one that starts goes by it. Raises HostError.
        """
        async with self._one_at_a_time:
            text = hub_config.render(settings)
            before = await asyncio.to_thread(self._files.config)
            if made is not None and before is not None and hub_config.needs_restart(before, text):
                await asyncio.to_thread(self._start_anew, settings, made)
                raise NotAnswered("nats-server is started anew")
            if made is not None and settings.cluster is not None:
                written = await asyncio.to_thread(self._files.put_authority, made.trusted)
                self._settled = self._settled and not written
            if self._settled or self._good is None:
                self._good = before
            if before != text:
                program = await asyncio.to_thread(self._find)
                await asyncio.to_thread(self._files.put_config, text, program)
                self._settled = False
            if not self._settled:
                await self._reload(settings.server_name)
                await asyncio.to_thread(self._files.remove_former_streams)

    def _start_anew(self, settings: HubSettings, made: MadeBy) -> None:
        renew_if_due(self._files, made, settings, anew=True)
        self._files.put_authority(made.trusted)
        self._files.put_config(hub_config.render(settings), self._find())
        self._settled, self._good = False, None
        self._restart()

    async def prepare(self, settings: HubSettings, made: MadeBy) -> bool:
        """Writes the files with which the server starts, unless it has them, and tells whether it did.

        They are in no backup: a hub that was restored makes them anew. Raises FleetError or HostError.
        """
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._prepare, settings, made)

    def _prepare(self, settings: HubSettings, made: MadeBy) -> bool:
        config, text = self._files.config(), hub_config.render(settings)
        is_ours = config is not None and settings.hub_nkey in config and not hub_config.needs_restart(config, text)
        if is_ours and self._files.leaf() is not None:
            return False
        if not is_ours:
            self._files.forget_leaf()  # of another authority, or for other names
        renew_if_due(self._files, made, settings)
        self._files.put_authority(made.trusted)
        self._files.put_config(text, self._find())
        self._restart()
        log.info("the files of the hub's nats-server are made anew")
        return True

    async def renew_leaf(self, settings: HubSettings, made: MadeBy, *, anew: bool = False) -> bool:
        """Replaces the hub's certificate if it is due, or `anew`; tells whether it did. `apply` has it served.

        Raises FleetError or HostError: the old one stays.
        """
        async with self._one_at_a_time:
            renewed = await asyncio.to_thread(renew_if_due, self._files, made, settings, anew=anew)
            self._settled = self._settled and not renewed
            return renewed

    async def connections(self, server_name: str) -> list[UserConnection]:
        """Returns the connections that the server has. Raises FleetError."""
        asked = json.dumps({"auth": True, "limit": hub_config.MOST_CONNECTIONS}).encode()
        answer = await self._ask(server_name, "CONNZ", asked)
        try:
            return msgspec.json.decode(answer, type=_Connz).data.connections
        except (ValueError, RecursionError) as error:
            raise NotAnswered(f"nats-server's answer is not understood: {error}") from error

    async def _ask(self, server_name: str, what: str, data: bytes = b"") -> bytes:
        asked = json.dumps({"server_name": server_name}).encode()
        server = json.loads(await self._system.request(WHO, asked, WITHIN_S))["server"]["id"]
        return await self._system.request(f"$SYS.REQ.SERVER.{server}.{what}", data, WITHIN_S)

    async def _reload(self, server_name: str) -> None:
        answer = await self._ask(server_name, "RELOAD")
        error = json.loads(answer).get("error")
        if error is not None:
            if self._good is not None:
                await asyncio.to_thread(self._files.put_back, self._good)
            raise FleetError(f"the hub's nats-server keeps its configuration: {error.get('description')}")
        self._settled = True


def renew_if_due(files: HubFiles, made: MadeBy, settings: HubSettings, *, anew: bool = False) -> bool:
    """Makes the hub's certificate if there is none or it is due, or `anew`; tells whether it did. Blocking.

    Raises FleetError or HostError.
    """
    leaf = files.leaf()
    if leaf is not None and not leaf.is_due(made.now) and not anew:
        return False
    hosts = () if settings.cluster is None else (host_of(settings.cluster.dialled),)
    try:
        new = certificates.make_leaf(made.authority, settings.server_name, made.now, hosts)
    except ValueError as error:
        raise FleetError(f"cannot make the hub's certificate: {error}") from error
    files.create_folder()
    files.put_leaf(new)
    log.info("the hub has a new certificate")
    return True
