"""A TCP relay on loopback that can be cut, and can fall silent in either direction."""

from __future__ import annotations

import asyncio
from contextlib import suppress

CHUNK = 65536


class Relay:
    """Relays connections to `target`, a port. `port` stays the same over cuts."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.to_target = asyncio.Event()  # set: data passes
        self.from_target = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.speak()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    def silence(self, to_target: bool = True, from_target: bool = True) -> None:
        """Holds what is sent; it passes once `speak` is called. Connections stay."""
        if to_target:
            self.to_target.clear()
        if from_target:
            self.from_target.clear()

    def speak(self) -> None:
        self.to_target.set()
        self.from_target.set()

    async def cut(self) -> None:
        """Aborts the connections, and refuses new ones until `listen`."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        for task in set(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            self._writers.add(writer)
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(other_writer)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(passed_on(reader, other_writer, self.to_target))
                    group.create_task(passed_on(other_reader, writer, self.from_target))
            except* OSError:
                pass
            finally:
                for each in (writer, other_writer):
                    each.transport.abort()
                    self._writers.discard(each)


async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: asyncio.Event) -> None:
    """Passes on what comes, while `open_` is set. Raises ConnectionError once nothing more does."""
    while data := await reader.read(CHUNK):
        await open_.wait()
        writer.write(data)
        await writer.drain()
    raise ConnectionError("the other side has ended")
