"""The bus in memory keeps the contract of a `HubLink`, so what is tested on it holds on a real hub."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import NoResponder, NotAnswered
from tests.support.fleet.bus import Bus, covers, matches
from tests.support.fleet.link_contract import AMS, FRA, Inbox, LinkContract, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.support.fleet.link_contract import HubWorld


class BusWorld:
    def __init__(self) -> None:
        self.bus = Bus()
        self.ams = self.bus.node(AMS)
        self.fra = self.bus.node(FRA)
        self.hub = self.bus.hub()

    async def cut(self, node: str) -> None:
        self.bus.cut(node)

    async def heal(self, node: str) -> None:
        self.bus.heal(node)

    async def make_state_stream(self, max_bytes: int) -> None:
        self.bus.stream("STATE", "wga.state.>", max_bytes)


@asynccontextmanager
async def bus_world() -> AsyncIterator[BusWorld]:
    yield BusWorld()


class TestBusLink(LinkContract):
    @pytest.fixture
    def make_hub_world(self) -> Callable[[], AbstractAsyncContextManager[HubWorld]]:
        return bus_world


def test_lost_request_and_lost_answer() -> None:
    """What is lost is lost as often as was said; the answer of what was done too, also that of a stream."""

    async def story() -> None:
        world, done = BusWorld(), Inbox()
        await world.ams.subscribe(f"wga.rpc.{AMS}.>", done.take)
        await world.ams.subscribe(f"wga.rpc.{AMS}.>", echo)
        subject = f"wga.rpc.{AMS}.{FRA}.open"
        world.bus.lose_requests("wga.rpc.>")
        with pytest.raises(NotAnswered):
            await world.fra.request(subject, b"1", 0.01)
        world.bus.lose_answers(f"wga.rpc.{AMS}.>")
        with pytest.raises(NotAnswered):
            await world.fra.request(subject, b"2", 0.01)
        assert await world.fra.request(subject, b"3", 10) == b"to 3"
        assert done.data == [b"2", b"3"]

        await world.make_state_stream(1000)
        world.bus.lose_answers("wga.state.>")
        kept = world.bus.stream("STATE", "wga.state.>").kept
        with pytest.raises(NotAnswered):
            await world.ams.keep(f"wga.state.{AMS}.mark", b"m", 0.01)
        assert kept == {f"wga.state.{AMS}.mark": (1, b"m")}

    asyncio.run(story())


def test_held_messages() -> None:
    """They wait until the test lets them go, in their order."""

    async def story() -> None:
        world, beats = BusWorld(), Inbox()
        await world.fra.subscribe("wga.hb.*", beats.take)
        with world.bus.hold("wga.hb.>"):
            await world.ams.publish(f"wga.hb.{AMS}", b"1")
            await world.ams.publish(f"wga.hb.{AMS}", b"2")
            await world.bus.idle()
            assert beats.data == []
        await world.bus.idle()
        assert beats.data == [b"1", b"2"]

    asyncio.run(story())


def test_a_cut_that_is_not_noticed() -> None:
    """Both sides believe to be connected; what they send is lost, and a request waits for its whole time."""

    async def story() -> None:
        world, beats = BusWorld(), Inbox()
        await world.ams.subscribe("wga.hb.*", beats.take)
        await world.ams.subscribe(f"wga.rpc.{AMS}.>", echo)
        world.bus.cut(AMS, noticed=False)
        assert world.ams.connected
        await world.ams.publish(f"wga.hb.{AMS}", b"lost")
        with pytest.raises(NotAnswered):
            await world.fra.request(f"wga.rpc.{AMS}.{FRA}.open", b"", 0.01)
        world.bus.cut(AMS)
        with pytest.raises(NoResponder):
            await world.fra.request(f"wga.rpc.{AMS}.{FRA}.open", b"", 10)
        world.bus.heal(AMS)
        assert await world.fra.request(f"wga.rpc.{AMS}.{FRA}.open", b"1", 10) == b"to 1"
        assert beats.data == []

    asyncio.run(story())


@pytest.mark.parametrize(
    ("pattern", "subject", "delivered"),
    [
        ("wga.hb.*", "wga.hb.a", True),
        ("wga.hb.*", "wga.hb.a.b", False),
        ("wga.>", "wga.hb.a", True),
        ("wga.>", "wga", False),
        (">", "wga", True),
        ("wga.*.a", "wga.hb.b", False),
    ],
)
def test_wildcards(pattern: str, subject: str, delivered: bool) -> None:
    assert matches(pattern, subject) is delivered


def test_a_right_with_wildcards_covers_what_it_matches() -> None:
    assert covers("wga.hb.*", "wga.hb.*")
    assert covers("wga.rpc.a.>", "wga.rpc.a.*.open")
    assert not covers("wga.hb.*", "wga.hb.>")
    assert not covers("wga.rpc.a.>", "wga.rpc.*.b")
