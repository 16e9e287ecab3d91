"""What one member sends keeps no other waiting, and does not fill the memory of who receives it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from appliance.fleet.link.subscription import OF_ONE, OF_ONE_AT_WORK, OF_ONE_BYTES, Subscription, sender_of
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from appliance.fleet.link.wire import Message

THIEF, FRA, HUB = "nod_" + "a" * 24, "nod_" + "f" * 24, "nod_" + "0" * 24


class Served:
    """A subscription whose handler does not end with what the thief has sent before `go_on`."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go_on = asyncio.Event()
        self.subscription = Subscription("wga.rpc.x.>", "", self._handle, VirtualClock())
        connection: Any = SimpleNamespace(lost=asyncio.Event())
        self._take = self.subscription.taking(connection)

    async def _handle(self, message: Message) -> None:
        sender = sender_of(message.subject)
        self.begun.append(sender)
        if sender == THIEF:
            await self.go_on.wait()
            raise ValueError("what it has sent is nonsense")

    async def send(self, sender: str, data: bytes = b"x") -> None:
        message: Any = SimpleNamespace(subject=f"wga.rpc.{HUB}.{sender}.open", data=data, reply="")
        await self._take(message)

    async def settle(self) -> None:
        while self.subscription._tasks:  # noqa: ASYNC110 (each step ends some)
            await asyncio.sleep(0)


def flooded(body: Callable[[Served], Awaitable[None]]) -> None:
    async def story() -> None:
        served = Served()
        for _ in range(20_000):
            await served.send(THIEF)
        await body(served)
        served.go_on.set()
        await served.settle()

    asyncio.run(story())


def test_a_flood_keeps_no_other_waiting(caplog: pytest.LogCaptureFixture) -> None:
    """Of one member so many are handled at once, so many wait, and the others are dropped; the log stays short."""

    async def body(served: Served) -> None:
        await served.send(FRA)
        for _ in range(3):
            await asyncio.sleep(0)
        assert served.begun == [THIEF] * OF_ONE_AT_WORK + [FRA]
        served.go_on.set()
        await served.settle()
        assert served.begun.count(THIEF) == OF_ONE
        assert len(caplog.records) < 40
        await served.send(THIEF)
        await served.settle()
        assert served.begun.count(THIEF) == OF_ONE + 1

    flooded(body)


def test_a_flood_fills_no_memory() -> None:
    """Large messages of one member wait up to a sum of bytes."""

    async def story() -> None:
        served, data = Served(), bytes(250_000)
        for _ in range(1000):
            await served.send(THIEF, data)
        assert 1 < len(served.subscription._tasks) <= OF_ONE_BYTES // len(data)
        served.go_on.set()
        await served.settle()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("subject", "sender"),
    [
        (f"wga.hb.{FRA}", FRA),
        (f"wga.led.{FRA}.sync", FRA),
        (f"wga.state.{FRA}.s.ses_1.0-a", FRA),
        (f"wga.rpc.{HUB}.{FRA}.open", FRA),
        ("wga.rpc", ""),
        ("", ""),
    ],
)
def test_the_sender_is_in_the_subject(subject: str, sender: str) -> None:
    assert sender_of(subject) == sender
