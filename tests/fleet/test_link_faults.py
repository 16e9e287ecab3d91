"""A hub that stops, dies or is cut off is noticed in seconds, and the link comes back by itself, with nothing stale."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import nats.errors
import pytest

from appliance.domain.clock import HostClock
from appliance.domain.errors import CutOff, NotAnswered
from appliance.fleet.link.connect_failure import Hindrance
from appliance.fleet.link.hub_connection import HubConnection
from appliance.fleet.link.link import NatsLink
from appliance.fleet.link.subscription import MOST_AT_WORK
from tests.support.fleet.hub_process import SECONDS, HubProcess
from tests.support.fleet.link_contract import AMS, FRA, Inbox, echo, until
from tests.support.fleet.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from appliance.fleet.link.link import LinkState
    from appliance.fleet.link.wire import Message

HB = f"wga.hb.{AMS}"


def boot_ms() -> int:
    return HostClock().now().boot_ms


class Cluster:
    """AMS's link goes through a relay, FRA's does not."""

    def __init__(self, folder: Path) -> None:
        self.hub = HubProcess(folder, AMS, FRA)
        self.relay = Relay(self.hub.port)
        self.states: list[LinkState] = []
        self.ams = NatsLink(
            lambda: (self.hub.at(self.relay.port),), self.hub.user(AMS), HostClock(), self.states.append
        )
        self.fra = NatsLink(lambda: (self.hub.at(),), self.hub.user(FRA), HostClock())
        self.beats = Inbox()

    async def noticed(self, what: str) -> float:
        """Waits until AMS knows that it is cut off; returns how long that took."""
        began = time.monotonic()
        await until(lambda: not self.ams.connected, f"{what} is noticed")
        return time.monotonic() - began

    async def both_work(self) -> None:
        """AMS asks FRA, which has subscribed long ago."""
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    assert await self.ams.request(f"wga.rpc.{FRA}.{AMS}.open", b"x", 5) == b"to x"
                    return
                except CutOff:
                    await asyncio.sleep(0.05)
                except Exception:  # noqa: BLE001 (FRA's link may not be back yet)
                    await asyncio.sleep(0.05)


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    made = Cluster(folder)
    with made.hub:
        await made.relay.listen()
        for link in (made.ams, made.fra):
            link.start()
            await link.wait_connected(SECONDS)
        await made.fra.subscribe("wga.hb.*", made.beats.take)
        await made.fra.subscribe(f"wga.rpc.{FRA}.>", echo)
        try:
            yield made
        finally:
            await made.ams.close()
            await made.fra.close()
            await made.relay.cut()


def run(folder: Path, body: Callable[[Cluster], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(100), cluster(folder) as made:
            await body(made)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()

    asyncio.run(whole())


def test_a_stopped_server(tmp_path: Path, show: Callable[[str], None]) -> None:
    """SIGSTOP: nothing is refused, nothing is answered. What is awaited ends when it is noticed (nats-py: 30 s)."""

    async def body(it: Cluster) -> None:
        it.hub.stop()
        asking = asyncio.create_task(it.ams.request(f"wga.rpc.{FRA}.{AMS}.open", b"x", 60))
        took = await it.noticed("a stopped server")
        show(f"stopped server noticed after {took:.1f} s")
        with pytest.raises(NotAnswered):
            await asking
        with pytest.raises(CutOff):
            await it.ams.publish(HB, b"late")
        assert not it.states[-1].connected
        it.hub.go_on()
        await it.ams.wait_connected(SECONDS)
        await it.both_work()
        assert [state.connected for state in it.states if state.failure is None] == [True, False, True]

    run(tmp_path, body)


def test_a_killed_server(tmp_path: Path) -> None:
    """It is noticed at once; while it is away the reason is told, and a new one is found by itself."""

    async def body(it: Cluster) -> None:
        it.relay.target = it.hub.port
        for _ in range(3):
            it.hub.kill()
            await it.noticed("a killed server")
            it.hub.start()
            await it.ams.wait_connected(SECONDS)
            await it.both_work()

    run(tmp_path, body)


def test_what_waits_for_jetstream_ends_with_the_connection(tmp_path: Path) -> None:
    """As if its time was over, at once: nats-py itself would wait for the whole of it."""

    async def body(it: Cluster) -> None:
        arrived = Inbox()
        await it.ams.subscribe(f"wga.rpc.{AMS}.>", arrived.take)
        connection = await HubConnection.dial(it.hub.user(FRA), it.hub.at(), HostClock())
        asking = asyncio.create_task(connection.client.request(f"wga.rpc.{AMS}.{FRA}.x", timeout=3600))
        await until(lambda: bool(arrived.messages), "it is asked")
        it.hub.kill()
        with pytest.raises(nats.errors.TimeoutError):
            await asking
        await connection.close()

    run(tmp_path, body)


def test_a_link_to_a_silent_hub_is_closed_in_time(tmp_path: Path) -> None:
    """In the time that it is given to send what is left; given up meanwhile, it leaves no connection either."""

    async def body(it: Cluster) -> None:
        fra = NatsLink(lambda: (it.hub.at(it.relay.port),), it.hub.user(FRA), HostClock())
        fra.start()
        await fra.wait_connected(SECONDS)
        it.relay.silence()
        await fra.close(0)
        connection = it.ams._connection
        assert connection is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.close(SECONDS)
        assert connection.lost.is_set()

    run(tmp_path, body)


def test_a_silent_way(tmp_path: Path, show: Callable[[str], None]) -> None:
    """Also if only what this host sends is lost, or only what it receives; the next connection works."""

    async def one(name: str, to_target: bool, from_target: bool) -> None:
        async with cluster(tmp_path / name) as it:
            it.relay.silence(to_target, from_target)
            took = await it.noticed("silence")
            show(f"{name}: silence noticed after {took:.1f} s")
            await until(lambda: it.states[-1].failure is not None, "the next try fails")
            assert it.states[-1].failure is not None
            # Of a host that cannot be heard, the hub gives up as soon as the host does.
            assert it.states[-1].failure.reason in (Hindrance.SILENT, Hindrance.NOT_A_HUB)
            it.relay.speak()
            await it.ams.wait_connected(SECONDS)
            await it.both_work()

    async def all_() -> None:
        async with asyncio.timeout(100):
            await asyncio.gather(one("both", True, True), one("out", True, False), one("in", False, True))

    asyncio.run(all_())


def test_a_burst_after_a_silence(tmp_path: Path) -> None:
    """Beats that were held up arrive, and have the time at which they came, all the same one: not when they were sent.

    One that has to wait for its handler has the time at which it came, too: not when it was handled.
    """

    async def body(it: Cluster) -> None:
        it.relay.silence(from_target=False)
        for number in range(3):
            await it.ams.publish(HB, b"%d" % number)
            await asyncio.sleep(0.1)
        spoke = boot_ms()
        it.relay.speak()
        await until(lambda: len(it.beats.messages) == 3, "they have come")
        assert all(message.arrived_ms >= spoke for message in it.beats.messages)

        held, go = Inbox(), asyncio.Event()

        async def handle(message: Message) -> None:
            await go.wait()
            await held.take(message)

        count = MOST_AT_WORK + 10
        await it.fra.subscribe(f"wga.rpc.{FRA}.{AMS}.>", handle)
        all_ = Inbox()
        await it.fra.subscribe(f"wga.rpc.{FRA}.{AMS}.*", all_.take)
        for _ in range(count):
            await it.ams.publish(f"wga.rpc.{FRA}.{AMS}.x", b"")
        await until(lambda: len(all_.messages) == count, "all have come")
        await asyncio.sleep(0.05)
        released = boot_ms()
        go.set()
        await until(lambda: len(held.messages) == count, "all are handled")
        assert all(message.arrived_ms < released for message in held.messages)

    run(tmp_path, body)


def test_nothing_that_a_lost_connection_had_left_is_sent_by_the_next(tmp_path: Path) -> None:
    """With more under way than the buffers hold, so that nats-py waits to write: noticed as soon, and dropped."""

    async def body(it: Cluster) -> None:
        it.relay.silence(from_target=False)
        for number in range(200):
            await it.ams.publish(HB, b"%d " % number + bytes(100_000))
        await it.noticed("silence under load")
        await it.relay.cut()  # as a real way would, the relay forgets what it was to send
        it.relay.speak()
        await it.relay.listen()
        await it.ams.wait_connected(SECONDS)
        await it.ams.publish(HB, b"new")
        await until(lambda: bool(it.beats.data) and it.beats.data[-1] == b"new", "the new one has come")
        assert len(it.beats.data) < 150  # what was on the way before; the last of them was not
        assert not any(data.startswith(b"199 ") for data in it.beats.data)

    run(tmp_path, body)


def test_closing(tmp_path: Path) -> None:
    """What was sent arrives, handlers are ended, and a hub that is silent does not hold it up."""

    async def body(it: Cluster) -> None:
        ended = asyncio.Event()

        async def handle(_message: Message) -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                ended.set()
                raise

        begun = Inbox()
        await it.ams.subscribe("wga.hb.*", handle)
        await it.ams.subscribe(f"wga.rpc.{AMS}.>", begun.take)
        await it.fra.publish(f"wga.hb.{FRA}", b"")
        await it.fra.publish(f"wga.rpc.{AMS}.{FRA}.x", b"")
        await until(lambda: bool(begun.messages), "the other is being handled")
        for number in range(400):
            await it.ams.publish(HB, b"%d" % number)
        await it.ams.close()
        assert ended.is_set()
        await until(lambda: it.beats.data[-1:] == [b"399"], "the last has arrived")
        it.hub.stop()
        async with asyncio.timeout(SECONDS):
            await it.fra.close()
        it.hub.go_on()

    run(tmp_path, body)
