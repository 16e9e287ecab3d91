"""A hub's nats-server beside `serve`: it runs for as long as that does, alone on its streams."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.fleet.nats_program import NATS_SERVER
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
from appliance.fleet.hub.files import hub_place
from appliance.fleet.hub.nats_server import NatsServer
from appliance.ops.install.layout import Layout
from tests.support.fleet.nats_program import NATS_SERVER

async def run():
    server = NatsServer(hub_place(Path(sys.argv[1]), Layout(Path(sys.argv[1]))), lambda: NATS_SERVER)
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
        stopping = asyncio.Event()
        running = asyncio.ensure_future(hub.server.run(stopping))
        await until(lambda: hub.server.pid is not None and not is_alive(pid))
        async with hub.signed_on(hub.hub_key, "_INBOX_hub"):
            pass
        stopping.set()
        await running

    asyncio.run(scene())
    assert hub.server.starts == 1


def test_one_that_has_outlived_its_serve_makes_way(tmp_path: Path) -> None:
    """nats-server itself would let two share their streams, on two ports, and say nothing."""
    hub = RealHub(tmp_path)
    lock = os.open(hub.place.folder / "nats-server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Without what ends it with its parent, as where that was killed before it could say so.
    orphan = subprocess.Popen(
        [NATS_SERVER, "-c", hub.place.config], pass_fds=(lock,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(lock)

    async def scene() -> None:
        async with hub.signed_on(hub.hub_key, "_INBOX_hub") as of_orphan:
            stopping = asyncio.Event()
            running = asyncio.ensure_future(hub.server.run(stopping))
            await until(lambda: hub.server.pid is not None)
            await until(lambda: not of_orphan.connected)
            async with hub.signed_on(hub.hub_key, "_INBOX_hub"):
                stopping.set()
            await running

    with orphan:
        asyncio.run(scene())
        assert orphan.wait(20) is not None


def test_another_program_s_streams_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever holds the lock, and is no server by this configuration, is named by what finds it."""
    monkeypatch.setattr("appliance.fleet.hub.nats_server.LOCK_S", 0.2)
    hub = RealHub(tmp_path)

    async def scene() -> None:
        stopping = asyncio.Event()
        running = asyncio.ensure_future(hub.server.run(stopping))
        await until(lambda: hub.server.fault is not None)
        stopping.set()
        await running

    with (hub.place.folder / "nats-server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        asyncio.run(scene())
    assert hub.server.starts == 0
    assert hub.server.fault is not None
    assert hub.server.fault.startswith(f"another program uses {tmp_path}/fleet/hub: end it (fuser -v ")


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
