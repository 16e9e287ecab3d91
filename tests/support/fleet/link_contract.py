"""What every `HubLink` must do: the one in memory and the real one run exactly these tests.

A test module subclasses the contract and gives it the fixture `make_hub_world`.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import pytest

from appliance.domain.errors import CutOff, NoResponder, NotAnswered, NotPermitted, StreamFull

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from appliance.fleet.link.wire import HubLink, Message

SECONDS_A_TEST = 110
AMS = "nod_" + "a" * 24
FRA = "nod_" + "f" * 24
SOON, LONG = 0.3, 20.0  # of a request that is to fail by its time; of one that is not


class HubWorld(Protocol):
    """Has one hub and links of the nodes AMS and FRA, connected."""

    ams: HubLink
    fra: HubLink
    hub: HubLink  # in the account HUB

    async def cut(self, node: str) -> None:
        """Cuts the node's links off; returns once they know."""
        ...

    async def heal(self, node: str) -> None:
        """Lets the node's links connect again; returns once they have."""
        ...

    async def make_state_stream(self, max_bytes: int) -> None:
        """Makes the stream of `wga.state.>` with the last message of each subject, refusing what does not fit."""
        ...


class Inbox:
    """Collects messages."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def take(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def data(self) -> list[bytes]:
        return [message.data for message in self.messages]


async def until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(SECONDS_A_TEST * 50):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"still not so: {what}")


async def echo(message: Message) -> None:
    await message.answer(b"to " + message.data)


async def silent(_message: Message) -> None: ...


class LinkContract:
    @pytest.fixture
    def make_hub_world(self) -> Callable[[], AbstractAsyncContextManager[HubWorld]]:
        raise NotImplementedError

    @pytest.fixture
    def run(
        self, make_hub_world: Callable[[], AbstractAsyncContextManager[HubWorld]]
    ) -> Callable[[Callable[[HubWorld], Awaitable[None]]], None]:
        def run(body: Callable[[HubWorld], Awaitable[None]]) -> None:
            async def whole() -> None:
                async with asyncio.timeout(SECONDS_A_TEST), make_hub_world() as world:
                    await body(world)

            asyncio.run(whole())

        return run

    def test_a_message_reaches_every_subscriber(self, run: Run) -> None:
        """Wildcards are NATS's; the sender gets its own; a message has its arrival, and awaits no answer."""

        async def body(world: HubWorld) -> None:
            own, others = Inbox(), Inbox()
            await world.ams.subscribe("wga.hb.*", own.take)
            await world.fra.subscribe("wga.hb.*", others.take)
            before = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
            await world.ams.publish(f"wga.hb.{AMS}", b"beat")
            await until(lambda: own.data == others.data == [b"beat"], "both have it")
            (message,) = others.messages
            assert (message.subject, message.reply) == (f"wga.hb.{AMS}", "")
            assert before <= message.arrived_ms <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
            with pytest.raises(NotPermitted):
                await message.answer(b"unasked")

        run(body)

    def test_a_request_is_answered_once(self, run: Run) -> None:
        """The responder sees in which inbox the asker waits; a second answer is refused."""

        async def body(world: HubWorld) -> None:
            second: list[Exception] = []

            async def answer(message: Message) -> None:
                assert message.reply.startswith(f"_INBOX_{FRA}.")
                await message.answer(message.data.upper())
                try:
                    await message.answer(b"again")
                except NotPermitted as error:
                    second.append(error)

            await world.ams.subscribe(f"wga.rpc.{AMS}.>", answer)
            assert await world.fra.request(f"wga.rpc.{AMS}.{FRA}.open", b"ask", LONG) == b"ASK"
            await until(lambda: len(second) == 1, "the second is refused")

        run(body)

    def test_a_handler_that_waits_holds_up_no_other(self, run: Run) -> None:
        """Messages are handled side by side; one whose handler failed is not answered, the next is."""

        async def body(world: HubWorld) -> None:
            first = asyncio.Event()

            async def handle(message: Message) -> None:
                if message.data == b"fail":
                    raise RuntimeError
                if message.data == b"wait":
                    await first.wait()
                await echo(message)

            await world.ams.subscribe(f"wga.rpc.{AMS}.>", handle)
            subject = f"wga.rpc.{AMS}.{FRA}.open"
            waiting = asyncio.create_task(world.fra.request(subject, b"wait", LONG))
            with pytest.raises(NotAnswered):
                await world.fra.request(subject, b"fail", SOON)
            assert await world.fra.request(subject, b"go", LONG) == b"to go"
            first.set()
            assert await waiting == b"to wait"

        run(body)

    def test_nobody_there_is_said_at_once(self, run: Run) -> None:
        """NoResponder where nobody subscribes, NotAnswered after the time where a subscriber is silent."""

        async def body(world: HubWorld) -> None:
            subject = f"wga.rpc.{AMS}.{FRA}.open"
            with pytest.raises(NoResponder):
                await world.fra.request(subject, b"", LONG)
            with pytest.raises(NoResponder):
                await world.fra.request(f"wga.led.{FRA}.sync", b"", LONG)
            await world.ams.subscribe(f"wga.rpc.{AMS}.>", silent)
            with pytest.raises(NotAnswered):
                await world.fra.request(subject, b"", SOON)

        run(body)

    def test_one_of_a_queue_group_gets_a_message(self, run: Run) -> None:
        """Each message reaches one of the group, and every subscriber that names none."""

        async def body(world: HubWorld) -> None:
            one, two, all_ = Inbox(), Inbox(), Inbox()
            await world.hub.subscribe("wga.led.*.sync", one.take, queue="ledger")
            await world.hub.subscribe("wga.led.*.sync", two.take, queue="ledger")
            await world.hub.subscribe("wga.led.>", all_.take)
            for number in range(40):
                await world.ams.publish(f"wga.led.{AMS}.sync", b"%d" % number)
            await until(lambda: len(all_.messages) == 40, "all have arrived")
            await until(lambda: len(one.messages) + len(two.messages) == 40, "one of the group has each")
            assert one.messages
            assert two.messages

        run(body)

    def test_the_ledger_answers_across_the_accounts(self, run: Run) -> None:
        """A node's request reaches the hub's account, which sees no inbox of the node; beats do not reach it."""

        async def body(world: HubWorld) -> None:
            beats, replies = Inbox(), []

            async def answer(message: Message) -> None:
                replies.append(message.reply)
                await echo(message)

            await world.hub.subscribe("wga.hb.*", beats.take)
            await world.hub.subscribe("wga.led.>", answer, queue="ledger")
            await world.ams.publish(f"wga.hb.{AMS}", b"beat")
            assert await world.ams.request(f"wga.led.{AMS}.sync", b"0", LONG) == b"to 0"
            assert AMS not in replies[0]
            assert beats.messages == []

        run(body)

    def test_what_a_node_may_not_do(self, run: Run) -> None:
        """NotPermitted: of requests and subscriptions at once, of messages no later than with one of the next."""

        async def body(world: HubWorld) -> None:
            beats = Inbox()
            await world.fra.subscribe("wga.hb.*", beats.take)
            with pytest.raises(NotPermitted):
                await world.ams.request(f"wga.led.{FRA}.sync", b"", LONG)
            with pytest.raises(NotPermitted):
                await world.ams.keep(f"wga.state.{FRA}.s.1.1", b"", LONG)
            for subject in (">", f"_INBOX_{FRA}.>", f"wga.rpc.{FRA}.>", "wga.led.>", "$KV.>"):
                with pytest.raises(NotPermitted):
                    await world.ams.subscribe(subject, silent)

            async def forge() -> None:
                while True:
                    await world.ams.publish(f"wga.hb.{FRA}", b"forged")
                    await asyncio.sleep(0.01)

            with pytest.raises(NotPermitted):
                await forge()
            await world.ams.publish(f"wga.hb.{AMS}", b"beat")
            await until(lambda: beats.data == [b"beat"], "its own is let through, and nothing else was")

        run(body)

    def test_a_stream_keeps_the_last_of_each_subject(self, run: Run) -> None:
        """`keep` returns when it has; NoResponder without a stream; StreamFull, but not for what becomes smaller."""

        async def body(world: HubWorld) -> None:
            subject = f"wga.state.{AMS}.s.1.1"
            with pytest.raises(NoResponder):
                await world.ams.keep(subject, b"a", LONG)
            await world.make_state_stream(max_bytes=2000)
            await world.ams.keep(subject, b"x" * 1000, LONG)
            with pytest.raises(StreamFull):
                await world.ams.keep(f"wga.state.{AMS}.s.2.1", b"x" * 1500, LONG)
            await world.ams.keep(subject, b"x" * 900, LONG)

        run(body)

    def test_cut_off_is_said_at_once(self, run: Run) -> None:
        """Nothing is kept for later: CutOff, and nothing of it is sent after the heal."""

        async def body(world: HubWorld) -> None:
            beats = Inbox()
            await world.fra.subscribe("wga.hb.*", beats.take)
            await world.cut(AMS)
            assert not world.ams.connected
            with pytest.raises(CutOff):
                await world.ams.publish(f"wga.hb.{AMS}", b"late")
            with pytest.raises(CutOff):
                await world.ams.request(f"wga.led.{AMS}.sync", b"late", LONG)
            with pytest.raises(CutOff):
                await world.ams.keep(f"wga.state.{AMS}.s.1.1", b"late", LONG)
            await world.heal(AMS)
            assert world.ams.connected
            await world.ams.publish(f"wga.hb.{AMS}", b"beat")
            await until(lambda: beats.data != [], "what was sent afterwards arrives")
            assert beats.data == [b"beat"]

        run(body)

    def test_subscriptions_outlast_a_cut(self, run: Run) -> None:
        """Those from before, and those made while cut off, once each."""

        async def body(world: HubWorld) -> None:
            before, meanwhile = Inbox(), Inbox()
            await world.ams.subscribe("wga.hb.*", before.take)
            await world.cut(AMS)
            await world.ams.subscribe(f"wga.rpc.{AMS}.>", meanwhile.take)
            await world.fra.publish(f"wga.hb.{FRA}", b"missed")
            await world.heal(AMS)
            await world.fra.publish(f"wga.hb.{FRA}", b"beat")
            await world.fra.publish(f"wga.rpc.{AMS}.{FRA}.close", b"rpc")
            await until(lambda: bool(before.data and meanwhile.data), "both are in force")
            assert (before.data, meanwhile.data) == ([b"beat"], [b"rpc"])

        run(body)

    def test_a_request_that_is_under_way_ends_with_the_connection(self, run: Run) -> None:
        """NotAnswered, long before its time: it may have been done. A responder that is cut off cannot answer."""

        async def body(world: HubWorld) -> None:
            arrived, go, failed = asyncio.Event(), asyncio.Event(), []

            async def handle(message: Message) -> None:
                arrived.set()
                await go.wait()
                try:
                    await message.answer(b"")
                except CutOff as error:
                    failed.append(error)

            await world.ams.subscribe(f"wga.rpc.{AMS}.>", handle)
            asking = asyncio.create_task(world.fra.request(f"wga.rpc.{AMS}.{FRA}.open", b"", 10 * SECONDS_A_TEST))
            await arrived.wait()
            await world.cut(FRA)
            with pytest.raises(NotAnswered):
                await asking
            await world.cut(AMS)
            await world.heal(AMS)
            go.set()
            await until(lambda: bool(failed), "the answer belongs to the connection that was lost")

        run(body)


if TYPE_CHECKING:
    Run = Callable[[Callable[[HubWorld], Awaitable[None]]], None]
