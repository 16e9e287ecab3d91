"""Joins whole exits in one process by sealed requests on the bus in memory, as a host joins its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nacl.public import PrivateKey

from appliance.fleet.rpc.rpc import Rpc
from appliance.fleet.rpc.seal import Seals
from tests.support.fleet.bus import Bus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.fleet.exits_under_test import ExitsUnderTest, FleetHost


async def by_bus(exits: ExitsUnderTest, longest_s: float = 1.0) -> Bus:
    """Joins the exits by a bus. `longest_s`: for the answer to one request."""
    bus = Bus()
    keys = {node: PrivateKey.generate() for node in exits.wire.hosts}
    public = {node: bytes(key.public_key) for node, key in keys.items()}
    ends: dict[str, Rpc] = {}

    def serving(host: FleetHost, name: str) -> Callable[[str, bytes], Awaitable[bytes]]:
        return lambda sender, payload: host.any.owner.handlers()[name](sender, payload)

    for node, host in exits.wire.hosts.items():
        bus.clock = host.exit_.clock
        ends[node] = Rpc(bus.node(node), node, Seals(bytes(keys[node]), public.get), host.exit_.clock)
        for name in host.any.owner.handlers():
            ends[node].register(name, serving(host, name))
        await ends[node].start()

    async def call(sender: str, node_id: str, operation: str, payload: bytes, timeout_s: float) -> bytes:
        return await ends[sender].call(node_id, operation, payload, min(timeout_s, longest_s))

    exits.wire.call = call  # type: ignore[method-assign]
    return bus
