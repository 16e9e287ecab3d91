"""Background tasks that crash."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from appliance.server import supervisor as supervising
from appliance.server.supervisor import Supervisor

if TYPE_CHECKING:
    import pytest


class Shaky:
    """Crashes as often as it is told, then returns."""

    def __init__(self, crashes: int) -> None:
        self.left = crashes
        self.runs = 0
        self.begun = asyncio.Event()

    async def run(self) -> None:
        self.runs += 1
        self.begun.set()
        await asyncio.sleep(0)
        if self.left:
            self.left -= 1
            raise ValueError(self.runs)


def test_a_crashed_task_is_logged_and_run_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that crashes is run again; each crash is logged with its cause, counted, and told until it runs again."""
    monkeypatch.setattr(supervising, "FIRST_DELAY_S", 0.001)
    told: list[tuple[str, str | None]] = []
    task = Shaky(2)

    async def story() -> Supervisor:
        supervisor = Supervisor(asyncio.Event(), lambda name, fault: told.append((name, fault)))
        await supervisor.keep("the watch", task.run)
        return supervisor

    supervisor = asyncio.run(story())
    assert task.runs == 3
    assert supervisor.crashes == {"the watch": 2}
    assert told == [
        ("the watch", None),
        ("the watch", "the watch crashed: ValueError: 1"),
        ("the watch", None),
        ("the watch", "the watch crashed: ValueError: 2"),
        ("the watch", None),
    ]
    assert [r.message for r in caplog.records] == [
        "the watch crashed; starting it again in 0.001 s",
        "the watch crashed; starting it again in 0.002 s",
    ]
    assert all(r.exc_info for r in caplog.records)


def test_nothing_is_started_again_once_the_server_stops() -> None:
    """Once the server stops nothing is started again, however long it would have waited."""

    async def story() -> int:
        stopping, task = asyncio.Event(), Shaky(1000)
        keeping = asyncio.create_task(Supervisor(stopping, lambda *_: None).keep("the watch", task.run))
        await task.begun.wait()
        stopping.set()
        async with asyncio.timeout(60):
            await keeping
        return task.runs

    assert asyncio.run(story()) == 1
