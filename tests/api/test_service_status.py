"""What systemd hears of an exit: ready, how it does, alive, reloading."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.config.load import parse_settings
from appliance.domain.clock import rfc3339
from appliance.domain.errors import ConfigError, TunnelError
from appliance.server.reload import Reload
from appliance.server.status import ServiceStatus
from appliance.server.systemd import Systemd
from appliance.store.queries import node as node_row
from tests.support.api.exit_under_test import CONFIG, ExitUnderTest, on_exit, until
from tests.support.systemd_socket import SystemdSocket, systemd_socket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from appliance.config.settings import Settings


@dataclass
class Told:
    """What systemd was told, and who says it."""

    systemd: SystemdSocket
    status: ServiceStatus
    stopping: asyncio.Event

    def alive(self) -> int:
        return len(self.systemd.all("WATCHDOG"))


@asynccontextmanager
async def reporting(exit_: ExitUnderTest) -> AsyncIterator[Told]:
    """The status of the exit, four times as often as a watchdog of 0.2 s asks for; no tick but the test's."""
    path = exit_.path.parent / "notify"
    parts, stopping = exit_.parts, asyncio.Event()
    with systemd_socket(path) as systemd:
        status = ServiceStatus(
            Systemd({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "200000"}),
            node=parts.node,
            readiness=parts.services.readiness,
            live=parts.live,
            ticker=parts.ticker,
            clock=exit_.clock,
        )
        running = asyncio.create_task(status.run(stopping))
        try:
            yield Told(systemd, status, stopping)
        finally:
            stopping.set()
            async with asyncio.timeout(60):
                await running


@on_exit()
async def test_the_status_follows_the_exit(exit_: ExitUnderTest) -> None:
    """Ready once the exit is; then the status follows the sessions, drain and faults, and names the last tick."""
    ada = await exit_.client()
    async with reporting(exit_) as told:
        await until(lambda: told.systemd.all("READY"), "ready")
        assert told.systemd.status == f"ready; sessions live: 0; last tick {rfc3339(exit_.clock.wall_ms)}"
        await ada.open()
        await until(lambda: "sessions live: 1" in told.systemd.status, "the session is counted")
        async with exit_.store.write() as db:
            await node_row.set_drained(db, drained=True)
        exit_.tunnel.fail_next(TunnelError("wga0: the device is on fire"))
        await exit_.tick()
        await until(lambda: "not ready: wga0: the device is on fire; drained" in told.systemd.status, "the fault")
        await exit_.tick()
        await until(lambda: told.systemd.status.startswith("ready; drained, no new sessions; "), "it has passed")
        assert told.systemd.all("READY") == ["1"]


@on_exit()
async def test_systemd_is_told_why_the_exit_is_not_ready(exit_: ExitUnderTest) -> None:
    """While /readyz says no, systemd is told why, and not that the exit is ready."""
    exit_.tunnel.interface.link = None
    async with reporting(exit_) as told:
        await until(lambda: told.systemd.status == "starting: the WireGuard interface is gone", "it says why not")
        assert not told.systemd.all("READY")


@on_exit()
async def test_reload_before_ready(exit_: ExitUnderTest) -> None:
    """A reload while the exit is starting is carried out, and makes nothing ready."""
    exit_.tunnel.interface.link = None
    taken: list[Settings] = []
    async with reporting(exit_) as told:
        await until(lambda: told.systemd.status.startswith("starting: "), "it is starting")
        reload = Reload(exit_.settings, lambda: exit_.settings, taken.append, exit_.parts.ticker, told.status)
        asked = asyncio.Event()
        asked.set()
        exit_.tunnel.gate.clear()
        running = asyncio.create_task(reload.run(asked, told.stopping))
        await until(lambda: taken, "the settings are taken over")
        told.stopping.set()
        exit_.tunnel.gate.set()
        await running
        assert not told.systemd.all("READY")
        assert not told.systemd.all("RELOADING")


@on_exit()
async def test_alive_is_told_once_a_tick(exit_: ExitUnderTest) -> None:
    """Alive is told once for each tick that came to its end, also one that found a fault."""
    async with reporting(exit_) as told:
        await until(lambda: told.alive() == 1, "the tick before is told")
        for count in range(2, 5):
            if count == 3:
                exit_.tunnel.fail_next(TunnelError("no"))
            await exit_.tick(after=1)
            await until(lambda count=count: told.alive() == count, "the tick is told")  # type: ignore[misc]


@on_exit()
async def test_a_hanging_tick_is_not_told_alive(exit_: ExitUnderTest) -> None:
    """A tick that hangs is not told, however long the event loop lives."""
    async with reporting(exit_) as told:
        await until(lambda: told.alive() == 1, "the tick before is told")
        exit_.tunnel.gate.clear()
        exit_.clock.advance(1)
        hanging = asyncio.create_task(exit_.parts.ticker.tick())
        # The clock has moved on, so that the status is told again: it looks.
        for seconds in range(3):
            said = len(told.systemd.all("STATUS"))
            exit_.clock.advance(100 + seconds)
            await until(lambda said=said: len(told.systemd.all("STATUS")) > said, "it looks")  # type: ignore[misc]
        assert told.alive() == 1
        exit_.tunnel.gate.set()
        with suppress(TunnelError):
            await hanging
        await until(lambda: told.alive() == 2, "the tick that ended is told")


@on_exit()
async def test_a_reload_is_told_and_keeps_what_was_left_out(exit_: ExitUnderTest) -> None:
    """Reloading, then ready, in this order; the status keeps what was not taken over until the next reload."""
    texts = [CONFIG + "keepalive = 7", "", CONFIG]
    taken: list[Settings] = []

    def read() -> Settings:
        text = texts.pop(0)
        if not text:
            raise ConfigError("config.toml: region = 7: must be text")
        return parse_settings(text, {}, "host")

    async with reporting(exit_) as told:
        await until(lambda: told.systemd.all("READY"), "ready")
        reload = Reload(exit_.settings, read, taken.append, exit_.parts.ticker, told.status)
        asked = asyncio.Event()
        running = asyncio.create_task(reload.run(asked, told.stopping))
        for count, remark in enumerate(
            (
                "changed, and needs a restart: wireguard.keepalive",
                "the configuration is not taken over: config.toml: region = 7: must be text",
                "sessions live: 0",
            ),
            start=2,
        ):
            asked.set()
            await until(lambda count=count: len(told.systemd.all("READY")) == count, "ready again")  # type: ignore[misc]
            states = [name for message in told.systemd.messages for name in ("RELOADING", "READY") if name in message]
            assert states == ["READY", *["RELOADING", "READY"] * (count - 1)]
            assert f"; {remark}; last tick" in told.systemd.status
        told.stopping.set()
        await running
    assert len(taken) == 2
