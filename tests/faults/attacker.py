"""`python -m tests.faults.attacker NAME ...`: one kind of client that means no good, for as long as it is told.

In a process of its own, so that what it takes of a processor is not taken from the good ones. It prints what it did.
"""

from __future__ import annotations

import asyncio
import json
import resource
import secrets
import socket
import ssl
import struct
from collections import Counter, deque
from contextlib import suppress
from itertools import cycle
from typing import TYPE_CHECKING

import click

from tests.support.malformed import REFUSED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

AT_ONCE = 200
PAUSE_S = 0.3
ONE_SOURCE, A_SECOND, STEPS_A_SECOND, MOST_HELD = "127.9.9.9", 1500, 100, 900
CHUNKS = 2000
TO_CLOSE_IS_TO_RESET = struct.pack("ii", 1, 0)  # struct linger


class Attack:
    """`many` connections at most to `address`, from changing addresses of the loopback, until `seconds` are over."""

    def __init__(self, address: tuple[str, int], token: str, many: int, seconds: float) -> None:
        self.address = address
        self.token = token
        self.many = many
        self.ends = asyncio.get_running_loop().time() + seconds
        self.seen = Counter[str]()
        self._sources: Iterator[str] = cycle(f"127.{a}.{b}.1" for a in range(1, 9) for b in range(250))

    def over(self) -> bool:
        return asyncio.get_running_loop().time() >= self.ends

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One more."""
        connection = socket.socket()
        connection.setblocking(False)
        connection.bind((next(self._sources), 0))
        await asyncio.get_running_loop().sock_connect(connection, self.address)
        self.seen["connections"] += 1
        return await asyncio.open_connection(sock=connection)

    async def all_of(self, client: Callable[[], Awaitable[None]], at_once: int = AT_ONCE) -> None:
        """`many` clients, `at_once` of them at a time."""
        gate = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with gate:
                if not self.over():
                    with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                        async with asyncio.timeout_at(self.ends):
                            await client()

        await asyncio.gather(*(one() for _ in range(self.many)))

    def status(self, answer: bytes) -> None:
        self.seen[answer[9:12].decode("latin-1") or "closed"] += 1


async def idle(attack: Attack) -> None:
    """Connections on which nothing is said, all held at once."""

    async def client() -> None:
        reader, writer = await attack.connect()
        held.append(writer)
        waiting.append(asyncio.create_task(reader.read()))

    held: list[asyncio.StreamWriter] = []
    waiting: list[asyncio.Task[bytes]] = []
    await attack.all_of(client)
    await asyncio.sleep(max(0, attack.ends - asyncio.get_running_loop().time()))
    attack.seen["closed by the server"] = sum(task.done() for task in waiting)
    await _let_go(held, waiting)


async def one_source(attack: Attack) -> None:
    """Silent connections of one address, many a second, each kept for as long as there is room for it here."""
    held: deque[socket.socket] = deque()
    while not attack.over() and attack.seen["connections"] < attack.many:
        for _ in range(A_SECOND // STEPS_A_SECOND):
            connection = socket.socket()
            connection.setblocking(False)
            connection.bind((ONE_SOURCE, 0))
            connection.connect_ex(attack.address)
            held.append(connection)
            attack.seen["connections"] += 1
        while len(held) > MOST_HELD:
            held.popleft().close()
        await asyncio.sleep(1 / STEPS_A_SECOND)
    for connection in held:
        connection.close()


async def slow_heads(attack: Attack) -> None:
    """Heads that come a line at a time, and never end."""

    async def client() -> None:
        reader, writer = await attack.connect()
        writer.write(b"GET /v1/regions HTTP/1.1\r\n")
        await _drip(attack, reader, writer, b"X-Slow: 1\r\n")

    await attack.all_of(client, at_once=attack.many)


async def slow_bodies(attack: Attack) -> None:
    """Bodies of requests that have a token, a byte at a time."""
    bearer = f"Authorization: Bearer {attack.token}"
    head = f"POST /v1/sessions HTTP/1.1\r\nHost: x\r\n{bearer}\r\nContent-Length: 60000\r\n\r\n"

    async def client() -> None:
        reader, writer = await attack.connect()
        writer.write(head.encode())
        await _drip(attack, reader, writer, b" ")

    await attack.all_of(client, at_once=attack.many)


async def unread(attack: Attack) -> None:
    """The document asked for again and again, and never read."""

    async def client() -> None:
        _, writer = await attack.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that also reads
        writer.write(b"GET /schema/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        await asyncio.sleep(max(0, attack.ends - asyncio.get_running_loop().time()))
        await _let_go([writer], [])

    await attack.all_of(client, at_once=attack.many)


async def oversized(attack: Attack) -> None:
    """Heads and bodies of megabytes, and bodies in chunks of one byte."""
    bearer = f"Authorization: Bearer {attack.token}\r\n".encode()
    shapes = cycle(
        [
            b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2**17,
            b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\n" + bearer + b"Content-Length: 4194304\r\n\r\n" + b"[" * 2**22,
            b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\n\r\n" + b"[" * 2**22,
            b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\n"
            + bearer
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + b"1\r\n[\r\n" * CHUNKS
            + b"0\r\n\r\n",
        ]
    )
    await attack.all_of(lambda: _say(attack, next(shapes)), at_once=20)


async def malformed(attack: Attack) -> None:
    """What is no request, and what could be read as two."""
    shapes = cycle(sent for _, sent in REFUSED.values())
    await attack.all_of(lambda: _say(attack, next(shapes)), at_once=50)


async def wrong_tokens(attack: Attack) -> None:
    """Another guess each time, over kept connections."""

    async def client() -> None:
        reader, writer = await attack.connect()
        while not attack.over():
            guess = secrets.token_hex(24)
            writer.write(f"GET /v1/usage HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wga_{guess}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            attack.status(head)
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        await _let_go([writer], [])

    attack.many = min(attack.many, 50)
    await attack.all_of(client, at_once=50)


async def reset(attack: Attack) -> None:
    """Answered, and gone without a word, again and again."""

    async def client() -> None:
        while not attack.over():
            reader, writer = await attack.connect()
            try:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: exit.test\r\n\r\n")
                attack.status(await reader.read(12))
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, TO_CLOSE_IS_TO_RESET)
            finally:
                await _let_go([writer], [])

    attack.many = min(attack.many, 20)
    await attack.all_of(client)


async def unfinished_handshakes(attack: Attack) -> None:
    """TLS that is begun and not gone on with: a whole first message, to which the server answers with a signature, or
    half of one. All are held at once, and begun anew where the server closes them."""
    hello = _hello()
    beginnings = cycle([hello, hello[: len(hello) // 2]])

    async def client() -> None:
        while not attack.over():
            reader, writer = await attack.connect()
            try:
                writer.write(next(beginnings))
                answer = await reader.read()
                attack.seen["answered and closed" if answer else "closed"] += 1
            finally:
                await _let_go([writer], [])

    await attack.all_of(client, at_once=attack.many)


def _hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="exit.test")
    with suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


async def _drip(attack: Attack, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: bytes) -> None:
    answer = asyncio.create_task(reader.read())
    try:
        while not answer.done():
            writer.write(piece)
            await asyncio.sleep(PAUSE_S)
        attack.status(await answer)
    finally:
        await _let_go([writer], [answer])


async def _say(attack: Attack, sent: bytes) -> None:
    reader, writer = await attack.connect()
    try:
        writer.write(sent)
        attack.status(await reader.read(12))
    finally:
        await _let_go([writer], [])


async def _let_go(writers: list[asyncio.StreamWriter], tasks: list[asyncio.Task[bytes]]) -> None:
    for writer in writers:
        writer.transport.abort()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


ATTACKS = {
    attack.__name__: attack
    for attack in (idle, one_source, slow_heads, slow_bodies, unread, oversized, malformed, wrong_tokens, reset)
}
TLS_ATTACKS = {unfinished_handshakes.__name__: unfinished_handshakes}


@click.command()
@click.argument("name", type=click.Choice([*ATTACKS, *TLS_ATTACKS]))
@click.option("--port", type=int, required=True)
@click.option("--token", default="")
@click.option("--many", default=1000)
@click.option("--seconds", default=5.0)
def main(name: str, port: int, token: str, many: int, seconds: float) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, many + 1000), most))

    async def whole() -> Counter[str]:
        attack = Attack(("127.0.0.1", port), token, many, seconds)
        await (ATTACKS | TLS_ATTACKS)[name](attack)
        return attack.seen

    click.echo(json.dumps(asyncio.run(whole())))


if __name__ == "__main__":
    main()
