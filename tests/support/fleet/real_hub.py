"""A hub on loopback: a fleet's authority, a real nats-server that the appliance's own parts run, and links to it.

async with real_hub(tmp_path) as hub:
    await hub.apply(members=(member,), invitations=())
    async with hub.signed_on(seed, "name") as nats: ...
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nats.aio.client import Client
from nats.errors import NoServersError

from appliance.domain.clock import HostClock
from appliance.fleet.hub.certificates import CertifiedKey, make_authority
from appliance.fleet.hub.config import HubSettings
from appliance.fleet.hub.control import HubControl, MadeBy, renew_if_due
from appliance.fleet.hub.files import HubFiles, hub_place
from appliance.fleet.hub.nats_server import NatsServer
from appliance.fleet.link.nkey import NKey
from appliance.ops.install.layout import Layout
from tests.support.fleet.nats_program import NATS_SERVER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from appliance.fleet.link.wire import Message
    from appliance.fleet.membership.members import FleetMember

SERVER_NAME = "abc.hub.internal"
WITHIN_S = 60.0


def now_ms() -> int:
    return HostClock().now().wall_ms


def free_port() -> int:
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110 (of another process)
            await asyncio.sleep(0.01)


class PlainLink:
    """What the hub's own parts need of a `HubLink`, on nats-py as it is."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def connected(self) -> bool:
        return self.client.is_connected

    async def publish(self, subject: str, data: bytes) -> None:
        await self.client.publish(subject, data)

    async def keep(self, subject: str, data: bytes, timeout_s: float) -> None:
        await self.client.request(subject, data, timeout=timeout_s)

    async def request(self, subject: str, data: bytes, timeout_s: float) -> bytes:
        answer: bytes = (await self.client.request(subject, data, timeout=timeout_s)).data
        return answer

    async def subscribe(self, subject: str, handle: Callable[[Message], Awaitable[None]], queue: str = "") -> None:
        async def received(message: object) -> None:
            await handle(_Received(message))

        await self.client.subscribe(subject, queue, cb=received)
        await self.client.flush()


class _Received:
    def __init__(self, message: object) -> None:
        self._message = message

    @property
    def subject(self) -> str:
        return str(self._message.subject)  # type: ignore[attr-defined]

    @property
    def data(self) -> bytes:
        return bytes(self._message.data)  # type: ignore[attr-defined]

    @property
    def reply(self) -> str:
        return str(self._message.reply)  # type: ignore[attr-defined]

    async def answer(self, data: bytes) -> None:
        await self._message.respond(data)  # type: ignore[attr-defined]


@dataclass
class RealHub:
    """A hub's files and keys, without a server yet. `settings`: as they are applied next."""

    state_dir: Path
    authority: CertifiedKey = field(default_factory=lambda: make_authority("flt_1", now_ms()))
    hub_key: NKey = field(default_factory=NKey.new)
    system_key: NKey = field(default_factory=NKey.new)
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.place = hub_place(self.state_dir, Layout(self.state_dir))
        self.files = HubFiles(self.place)
        self.files.create_folder()
        renew_if_due(self.files, self.made(), self.settings())
        self.server = NatsServer(self.place, lambda: NATS_SERVER)
        self.files.put_config(self.config(), NATS_SERVER)
        self.control: HubControl | None = None

    def made(self) -> MadeBy:
        return MadeBy(self.authority, self.authority.certificate, now_ms())

    def config(self, *members: FleetMember, invitations: tuple[str, ...] = ()) -> str:
        from appliance.fleet.hub.config import render

        return render(self.settings(*members, invitations=invitations))

    def settings(self, *members: FleetMember, invitations: tuple[str, ...] = ()) -> HubSettings:
        keys = self.hub_key.public, self.system_key.public
        return HubSettings(SERVER_NAME, f"127.0.0.1:{self.port}", self.place.files, *keys, members, invitations)

    async def apply(self, *members: FleetMember, invitations: tuple[str, ...] = ()) -> None:
        assert self.control is not None
        await self.control.apply(self.settings(*members, invitations=invitations))

    @asynccontextmanager
    async def signed_on(self, key: NKey, inbox: str) -> AsyncIterator[PlainLink]:
        """A connection with this key, which is not made again. A key that is not known raises nats.errors.Error."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        tls.load_verify_locations(cadata=self.authority.certificate)
        client = await self._dialled(key, inbox, tls)
        try:
            yield PlainLink(client)
        finally:
            await client.close()

    async def _dialled(self, key: NKey, inbox: str, tls: ssl.SSLContext) -> Client:
        """Tries again while nobody listens there yet."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                client = Client()
                client._public_nkey = key.public  # nats-py reads it from a seed alone, with the package nkeys
                try:
                    await client.connect(
                        f"tls://127.0.0.1:{self.port}",
                        signature_cb=lambda nonce: base64.b64encode(key.sign(nonce.encode())),
                        tls=tls,
                        tls_hostname=SERVER_NAME,
                        inbox_prefix=inbox,
                        error_cb=_unheard,
                        allow_reconnect=False,
                        max_reconnect_attempts=1,
                        reconnect_time_wait=0.02,
                    )
                except (OSError, NoServersError):
                    await asyncio.sleep(0.02)
                else:
                    return client


async def _unheard(_error: Exception) -> None:
    """nats-py would log it."""


@asynccontextmanager
async def real_hub(state_dir: Path) -> AsyncIterator[RealHub]:
    """Runs the server until the end of the block; with a link in SYS, by which the configuration is applied."""
    hub, stopping = RealHub(state_dir), asyncio.Event()
    running = asyncio.ensure_future(hub.server.run(stopping))
    try:
        await until(lambda: hub.server.pid is not None)
        async with hub.signed_on(hub.system_key, "_INBOX_sys") as system:
            hub.control = HubControl(hub.files, lambda: NATS_SERVER, system)
            yield hub
    finally:
        stopping.set()
        with contextlib.suppress(asyncio.CancelledError):
            await running
