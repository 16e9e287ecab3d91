"""The server's tick without the server: a real store and a real device, and an egress that is always in place."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from appliance.config.load import parse_settings
from appliance.domain.clock import HostClock
from appliance.network.exit_node import build_exit
from appliance.server import assembly
from appliance.sessions.metrics import Metrics
from appliance.store.database import Store
from appliance.store.known_time import believed_clock
from tests.bench import books
from tests.bench.device import PORT, PRIVATE_KEY
from tests.support.egress_in_place import EgressInPlace
from tests.support.fixed_host import FixedHost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from appliance.config.settings import Settings
    from appliance.domain.clock import Moment
    from appliance.network.exit_node import Exit
    from appliance.network.wireguard.tunnel import Peer
    from tests.bench.device import Device

    Fill = Callable[[Path, Sequence[Peer], Moment, int, Random], None]

CONFIG = """
[node]
region = "test"
public_ip = "192.0.2.1"
[wireguard]
subnet = "10.101.0.0/16"
[meter]
interval = "1d"
[tiers.free]
seconds_limit = 0
bytes_limit = "1 TiB"
idle_timeout = "1h"
max_live_sessions = 0
"""


class Ticking:
    """An exit of which each of the tunnel's peers is a session, or what else `fill` writes.

    A whole tick reads, compares and commits.
    """

    def __init__(self, device: Device, folder: Path, fill: Fill = books.fill) -> None:
        self._loop = device.loop
        self._store, self._parts = self._loop.run_until_complete(_build(device, folder, fill))

    def tick(self) -> None:
        self._tick(whole=True)

    def look(self) -> None:
        """What nine of ten ticks are: all counters read and compared, nobody at an end, nothing to commit yet."""
        self._tick(whole=False)

    def _tick(self, *, whole: bool) -> None:
        self._loop.run_until_complete(self._parts.ticker.tick(whole=whole))
        if self._parts.node.health.check_fault is not None:
            raise RuntimeError(self._parts.node.health.check_fault)

    @property
    def bytes_counted(self) -> int:
        return self._parts.meter.bytes_out

    def close(self) -> None:
        self._loop.run_until_complete(self._store.close())


async def _build(device: Device, folder: Path, fill: Fill) -> tuple[Store, assembly.Parts]:
    path = folder / "store.sqlite"
    await (await Store.open(path)).close()
    clock = HostClock()
    fill(path, device.peers, clock.now(), (await device.tunnel.dump()).ifindex, Random(1))  # noqa: S311
    settings = parse_settings(CONFIG, {}, "bench")
    store = await Store.open(path)
    parts = await assembly.build(
        settings,
        store=store,
        tunnel=device.tunnel,
        egress=EgressInPlace(),
        exit_=_exit(settings, device.name),
        host=FixedHost(),
        clock=await believed_clock(store, clock),
        metrics=Metrics(),
    )
    return store, parts


def _exit(settings: Settings, interface: str) -> Exit:
    exit_ = build_exit(settings.wireguard, PRIVATE_KEY)
    return replace(exit_, interface=interface, listen_port=PORT)
