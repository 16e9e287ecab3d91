"""A TCP relay on loopback that knows which host dials, so that each host's way through it can be cut by itself."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.fleet.relay import passed_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NET = Path("/proc/net/tcp")


def owner_of(port: int, at: str, processes: Iterable[int]) -> int | None:
    """Returns which of the processes dials `at` (IPv4) from this port; None: none of them."""
    inode = _inode(port, at)
    if inode is None:
        return None
    wanted = f"socket:[{inode}]"
    for process in processes:
        with suppress(OSError):  # it has ended
            for each in Path(f"/proc/{process}/fd").iterdir():
                with suppress(OSError):
                    if str(each.readlink()) == wanted:
                        return process
    return None


def _inode(port: int, at: str) -> str | None:
    """Of the dialling socket: its remote address is `at`."""
    local, remote = f"{port:04X}", "".join(f"{int(part):02X}" for part in reversed(at.split(".")))
    for line in NET.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{local}") and fields[2].startswith(f"{remote}:"):
            return fields[9]
    return None


@dataclass(eq=False)
class Way:
    """One connection. `opened`: unset while its data is held."""

    dialler: str
    writers: list[asyncio.StreamWriter]
    opened: asyncio.Event = field(default_factory=asyncio.Event)


class Junction:
    """Relays to `target`, (host, port), from `at`. `who`: names the host that dials, by its port.

    `cut_off`: diallers that are refused. `silent`: of these what is sent is held.
    """

    def __init__(self, at: tuple[str, int], target: tuple[str, int], who: Callable[[int, str], str]) -> None:
        self._at = at
        self._target = target
        self._who = who
        self._server: asyncio.Server | None = None
        self._ways: dict[asyncio.Task[None], Way] = {}
        self.cut_off: set[str] = set()
        self.silent: set[str] = set()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, *self._at, reuse_address=True)

    def cut(self, dialler: str) -> None:
        """Aborts what this host has through here, and refuses it until `heal`."""
        self.cut_off.add(dialler)
        for way in self._ways.values():
            if way.dialler == dialler:
                for each in way.writers:
                    each.transport.abort()

    def silence(self, dialler: str) -> None:
        """Holds what is sent either way; it passes once it is healed. Connections stay."""
        self.silent.add(dialler)
        for way in self._ways.values():
            if way.dialler == dialler:
                way.opened.clear()

    def heal(self, dialler: str) -> None:
        self.cut_off.discard(dialler)
        self.silent.discard(dialler)
        for way in self._ways.values():
            if way.dialler == dialler:
                way.opened.set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task, way in list(self._ways.items()):
            for each in way.writers:
                each.transport.abort()
            task.cancel()
        if self._ways:
            await asyncio.wait(list(self._ways))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialler = self._who(writer.get_extra_info("peername")[1], self._at[0])
        if dialler in self.cut_off:
            writer.transport.abort()
            return
        way = Way(dialler, [writer])
        if dialler not in self.silent:
            way.opened.set()
        task = asyncio.create_task(self._relay(way, reader))
        self._ways[task] = way
        task.add_done_callback(self._ways.pop)

    async def _relay(self, way: Way, reader: asyncio.StreamReader) -> None:
        (writer,) = way.writers
        try:
            with suppress(OSError):
                other_reader, other = await asyncio.open_connection(*self._target)
                way.writers.append(other)
                async with asyncio.TaskGroup() as group:
                    group.create_task(passed_on(reader, other, way.opened))
                    group.create_task(passed_on(other_reader, writer, way.opened))
        except* OSError:
            pass
        finally:
            for each in way.writers:
                each.transport.abort()
