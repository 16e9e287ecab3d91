"""Makes of nats-py's client one that dials once, signs with an NKey, and is cut at once from a hub that is silent.

What nats-py does not promise to keep is named in tests/unit/test_nats_privates.py.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import Transport

from appliance.fleet.link.connect_failure import connect_failed
from appliance.fleet.link.inflow import Inflow
from appliance.fleet.link.nats_parser import MessageParser

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from urllib.parse import ParseResult

    from appliance.domain.clock import Clock
    from appliance.fleet.link.nkey import NKey

log = logging.getLogger(__name__)

STEP_S = 3  # of connecting: TCP, the hub's first line, TLS, its answer
WHOLE_S = 6.0  # of all of them
STORED = b"$JS.ACK."  # how the reply subject begins, of what a consumer reads
ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
NEVER_S = 86_400  # the pings are `HubConnection`'s


class Hub(Protocol):
    """Says where a hub listens, as HOST:PORT, and the name in its certificate."""

    @property
    def address(self) -> str: ...

    @property
    def server_name(self) -> str: ...


@dataclass(frozen=True)
class LinkUser:
    """Holds who signs on. `name`: shown in the hub's log; `inbox`: the prefix of the subjects of answers.

    `tls`: trusts the fleet's CA and nothing else.
    """

    name: str
    inbox: str
    key: NKey
    tls: ssl.SSLContext


class CuttingTransport(Transport):
    """Is a TCP connection with TLS that is closed by cutting it.

    nats-py's own waits up to 30 s for the TLS goodbye of a peer that is gone, and for what it is still to send.

    CONNECT is sent with the PING that nats-py writes behind it: a server that refuses the former closes the connection,
    and the latter could no longer be sent, by which asyncio gives up the connection with what the server said unread.
    """

    def __init__(self) -> None:
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._cut = False
        self._held = b""

    def __bool__(self) -> bool:
        return True  # a client takes one that is false for none, and makes its own

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        async with asyncio.timeout(connect_timeout):
            self._reader, self._writer = await asyncio.open_connection(uri.hostname, uri.port, limit=buffer_size)

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,  # noqa: ARG002 (that of `connect` stays)
        connect_timeout: int,
    ) -> None:
        name = uri if isinstance(uri, str) else uri.hostname
        async with asyncio.timeout(connect_timeout):
            await self._open_writer.start_tls(ssl_context, server_hostname=name)

    def write(self, payload: bytes) -> None:
        if payload.startswith(b"CONNECT "):
            self._held = payload
        elif not self._cut:
            payload, self._held = self._held + payload, b""
            self._open_writer.write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        if not self._cut:
            self._open_writer.writelines(payload)

    async def drain(self) -> None:
        if not self._cut:
            await self._open_writer.drain()

    async def read(self, buffer_size: int) -> bytes:
        return await self._open_reader.read(buffer_size)

    async def readline(self) -> bytes:
        return await self._open_reader.readline()

    def at_eof(self) -> bool:
        return self._cut or self._reader is None or self._reader.at_eof()

    def close(self) -> None:
        self._cut = True
        if self._writer is not None:
            self._writer.transport.abort()

    async def wait_closed(self) -> None:
        return

    @property
    def _open_reader(self) -> asyncio.StreamReader:
        if self._reader is None:
            raise ConnectionError("not connected")
        return self._reader

    @property
    def _open_writer(self) -> asyncio.StreamWriter:
        if self._writer is None:
            raise ConnectionError("not connected")
        return self._writer


class HubClient(Client):
    """Is a client for one connection: one that is lost is never used again, so that nothing stale is sent.

    `on_error`, `on_closed`: called while it is connected, the latter once.
    """

    def __init__(
        self, user: LinkUser, on_error: Callable[[Exception], Awaitable[None]], on_closed: Callable[[], None]
    ) -> None:
        super().__init__()
        self._cutting = CuttingTransport()
        self._transport = self._cutting
        self._ps = MessageParser(self)
        # nats-py sends the key that it read from a seed, with the package nkeys. Here it has none, and signs by ours.
        self._public_nkey = user.key.public
        self._user = user
        self._on_error = on_error
        self._on_closed = on_closed
        self._dialing = True
        self._inflow = Inflow()

    async def dial(self, hub: Hub, clock: Clock) -> None:
        """Connects, in bounded time. Raises ConnectFailed; nothing is left behind then."""
        if not ADDRESS.fullmatch(hub.address):
            error = ValueError("not HOST:PORT")
            raise connect_failed(error, hub.address, hub.server_name, clock.now())
        try:
            async with asyncio.timeout(WHOLE_S):
                await self._dial(hub)
        except (OSError, nats.errors.Error, UnicodeError) as error:
            await self.cut()
            raise connect_failed(error, hub.address, hub.server_name, clock.now()) from error
        except BaseException:
            await self.cut()
            raise
        self._dialing = False

    async def _dial(self, hub: Hub) -> None:
        await self.connect(
            f"tls://{hub.address}",
            error_cb=self._error,
            closed_cb=self._closed,
            name=self._user.name,
            allow_reconnect=False,
            connect_timeout=STEP_S,
            ping_interval=NEVER_S,
            pending_size=0,
            tls=self._user.tls,
            tls_hostname=hub.server_name,
            signature_cb=self._sign,
            inbox_prefix=self._user.inbox,
        )

    def _sign(self, nonce: str) -> bytes:
        return base64.b64encode(self._user.key.sign(nonce.encode()))

    async def _error(self, error: Exception) -> None:
        if self._dialing:
            raise error  # nats-py would try again and again, and end with "no servers available"
        await self._on_error(error)

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        """Reads them as nats-py does; those that it fails on, any member can send: they count as none."""
        try:
            read: dict[str, str] | None = await super()._process_headers(headers)
        except (ValueError, IndexError):
            return None
        return read

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Takes a message, unless its sender sends too many; without its headers if it is of a stream.

        What a member has stored could have those by which a server stops and goes on: nats-py then sends an empty
        message to the subject that they name, by this user's rights, and deletes a stream with it.
        """
        of_stream = reply.startswith(STORED)
        if not of_stream and not self._inflow.takes(subject, asyncio.get_running_loop().time()):
            if self._inflow.dropped.bit_count() == 1:  # the 1st, 2nd, 4th, 8th…
                log.warning("%d messages of others were dropped: too many on %r", self._inflow.dropped, subject[:200])
            return
        await super()._process_msg(sid, subject, reply, data, b"" if of_stream else headers)

    async def _closed(self) -> None:
        if not self._dialing:
            self._on_closed()

    def give_up(self) -> None:
        """Ends nats-py's own requests (JetStream's), as if their time was over: the answers cannot come any more."""
        for answer in tuple(self._resp_map.values()):
            if not answer.done():
                answer.set_exception(nats.errors.TimeoutError())
                answer.exception()  # taken: it may be that nobody waits for it any more

    async def cut(self) -> None:
        """Ends the connection at once; what was not sent is dropped."""
        self._cutting.close()
        await self.close()
