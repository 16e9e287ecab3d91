"""The link to a real hub keeps the contract that the bus in memory keeps."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from appliance.domain.clock import HostClock
from appliance.fleet.link.link import NatsLink
from tests.support.fleet.hub_process import SECONDS, HubProcess
from tests.support.fleet.link_contract import AMS, FRA, LinkContract, until
from tests.support.fleet.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from appliance.fleet.link.nats_client import LinkUser
    from tests.support.fleet.link_contract import HubWorld


class RealWorld:
    """Each node dials the hub through a relay of its own."""

    def __init__(self, hub: HubProcess) -> None:
        self._relays = {node: Relay(hub.port) for node in (AMS, FRA)}
        self.ams = self._link(hub, hub.user(AMS), AMS)
        self.fra = self._link(hub, hub.user(FRA), FRA)
        self.hub = self._link(hub, hub.hub_user(), None)
        self._links = {AMS: self.ams, FRA: self.fra}

    def _link(self, hub: HubProcess, user: LinkUser, node: str | None) -> NatsLink:
        def hubs() -> tuple[object, ...]:
            return (hub.at(self._relays[node].port if node else None),)

        return NatsLink(hubs, user, HostClock())

    async def start(self) -> None:
        for relay in self._relays.values():
            await relay.listen()
        for link in (self.ams, self.fra, self.hub):
            link.start()
            await link.wait_connected(SECONDS)

    async def close(self) -> None:
        for link in (self.ams, self.fra, self.hub):
            await link.close()
        for relay in self._relays.values():
            await relay.cut()

    async def cut(self, node: str) -> None:
        await self._relays[node].cut()
        await until(lambda: not self._links[node].connected, "it knows")

    async def heal(self, node: str) -> None:
        await self._relays[node].listen()
        await self._links[node].wait_connected(SECONDS)

    async def make_state_stream(self, max_bytes: int) -> None:
        await self.hub.jetstream().add_stream(
            StreamConfig(
                name="STATE",
                subjects=["wga.state.>"],
                max_bytes=max_bytes,
                max_msgs_per_subject=1,
                discard=DiscardPolicy.NEW,
            )
        )


@asynccontextmanager
async def real_world(folder: Path) -> AsyncIterator[RealWorld]:
    with HubProcess(folder, AMS, FRA) as hub:
        world = RealWorld(hub)
        try:
            await world.start()
            yield world
        finally:
            await world.close()


class TestNatsLink(LinkContract):
    @pytest.fixture
    def make_hub_world(self, tmp_path: Path) -> Callable[[], AbstractAsyncContextManager[HubWorld]]:
        return partial(real_world, tmp_path)
