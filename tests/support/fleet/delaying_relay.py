"""`python -m tests.support.fleet.delaying_relay PORT TARGET SECONDS`: a TCP relay that is that far away, each way."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

CHUNK = 65536
BACKLOG = 256


async def serve(port: int, target: int, delay_s: float) -> None:
    """Relays connections to `port` on all addresses to `target` on loopback, until it is cancelled."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await asyncio.sleep(delay_s)  # the first packet is on its way
            others = await asyncio.open_connection("127.0.0.1", target)
            await asyncio.gather(late(reader, others[1], delay_s), late(others[0], writer, delay_s))

    server = await asyncio.start_server(accept, "0.0.0.0", port, backlog=BACKLOG)  # noqa: S104 (of a test's namespace)
    async with server:
        await server.serve_forever()


async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Passes on what comes, each piece that much later, however many are on their way."""
    loop, on_its_way = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

    async def write() -> None:
        while True:
            at, data = await on_its_way.get()
            await asyncio.sleep(max(0.0, at - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    writing = asyncio.create_task(write())
    data = b"-"
    while data:
        try:
            data = await reader.read(CHUNK)
        except OSError:
            data = b""
        on_its_way.put_nowait((loop.time() + delay_s, data))
    with suppress(OSError):
        await writing


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
