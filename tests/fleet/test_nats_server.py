"""A hub's nats-server beside `serve`: it runs for as long as that does, alone on its streams."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.fleet.real_hub import RealHub, real_hub, until

if TYPE_CHECKING:
    import pytest


def is_alive(pid: int) -> bool:
    """Of a zombie it is False."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_ends_with_serve_and_is_started_again_when_it_is_killed(tmp_path: Path) -> None:
    """Members are let in again by the next one."""

    async def scene() -> tuple[int, int]:
        async with real_hub(tmp_path) as hub:
            first = hub.server.pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
            await until(lambda: hub.server.starts == 2)
            async with hub.signed_on(hub.hub_key, "_INBOX_hub"):
                assert hub.server.fault is None
                second = hub.server.pid
            assert second is not None
        return first, second

    first, second = asyncio.run(scene())
    assert first != second
    assert not is_alive(second)
    log = tmp_path / "fleet/hub/nats-server.log"
    assert "Server is ready" in log.read_text(encoding="utf-8")
    assert log.stat().st_mode & 0o077 == 0


RUN = """
import asyncio, sys
from pathlib import Path
from appliance.fleet.hub_files import hub_place
from appliance.fleet.nats_server import NatsServer
from tests.support.fleet.nats_program import NATS_SERVER

async def run():
    server = NatsServer(hub_place(Path(sys.argv[1]), Path(sys.argv[1]) / "no unit"), lambda: NATS_SERVER)
    running = asyncio.ensure_future(server.run(asyncio.Event()))
    while server.pid is None:
        await asyncio.sleep(0.01)
    print(server.pid, flush=True)
    await running

asyncio.run(run())
"""


def test_it_ends_with_a_serve_that_is_killed(tmp_path: Path) -> None:
    """An orphan would keep port and streams from the next one, which then starts at once."""
    hub = RealHub(tmp_path)
    with subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True) as serve:
        assert serve.stdout is not None
        pid = int(serve.stdout.readline())
        serve.kill()

    async def scene() -> None:
        await until(lambda: not is_alive(pid))
        stopping = asyncio.Event()
        running = asyncio.ensure_future(hub.server.run(stopping))
        async with hub.signed_on(hub.hub_key, "_INBOX_hub"):
            pass
        stopping.set()
        await running

    asyncio.run(scene())
    assert hub.server.starts == 1


def test_two_do_not_share_their_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nats-server itself would start, on another port, and say nothing."""
    monkeypatch.setattr("appliance.fleet.nats_server.LOCK_S", 0.2)

    async def scene() -> str | None:
        async with real_hub(tmp_path) as hub:
            other, stopping = RealHub(tmp_path, hub.authority), asyncio.Event()
            running = asyncio.ensure_future(other.server.run(stopping))
            await until(lambda: other.server.fault is not None)
            stopping.set()
            await running
            assert other.server.starts == 0
            return other.server.fault

    fault = asyncio.run(scene())
    assert fault is not None
    assert fault.startswith(f"another nats-server uses {tmp_path}/fleet/hub: end it (fuser -v ")


def test_why_it_does_not_run_is_said(tmp_path: Path) -> None:
    """In the words of its log: the port is taken."""
    hub = RealHub(tmp_path)

    seen: list[str | None] = []

    async def watched() -> None:
        stopping = asyncio.Event()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", hub.port))
            taken.listen()
            running = asyncio.ensure_future(hub.server.run(stopping))
            await until(lambda: hub.server.fault is not None)
            seen.append(hub.server.fault)
        async with hub.signed_on(hub.hub_key, "_INBOX_hub"):
            seen.append(hub.server.fault)
        stopping.set()
        await running

    asyncio.run(watched())
    assert seen[0] is not None
    assert "address already in use" in seen[0]
    assert seen[1] is None
