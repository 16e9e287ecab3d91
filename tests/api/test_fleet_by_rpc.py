"""Exits of a fleet ask each other over the hubs, sealed: the parts as they are joined on a host, on a bus in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nacl.public import PrivateKey

from appliance.fleet.rpc import Rpc
from appliance.fleet.seal import Seals
from tests.support.api.answers import refused
from tests.support.api.device_owner import Owner
from tests.support.fleet.bus import Bus
from tests.support.fleet.exits_under_test import on_fleet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.fleet.exits_under_test import ExitsUnderTest, FleetClient, FleetHost

FAILED = "peer apply failed; node may be disconnected"
CROWD, MOST_LISTED = 50, 200
PATIENT_S = 60.0


async def by_bus(exits: ExitsUnderTest, longest_s: float = 1.0) -> Bus:
    """Joins the exits by a bus. `longest_s`: how long they wait for an answer."""
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


@on_fleet("ams", "fra", config_text="[tiers.paid]\nmax_live_sessions = 0\n")
async def test_the_whole_api_works_over_the_hubs(exits: ExitsUnderTest) -> None:
    """Sessions and devices are opened, shown, listed and ended; of what is lost on the way nothing is left."""
    bus = await by_bus(exits)
    ada = await exits.client()
    there, host = ada.at("ams"), exits["fra"]
    opened = await there.open(region="fra")
    assert (await there.status(opened["id"]))["region"] == "fra"
    assert len((await there.get("/v1/sessions")).json()["sessions"]) == 1
    assert (await there.delete(opened["id"])).status_code == 200
    made = await Owner(there).add("phone", region="fra")
    assert (await Owner(there).remove(made["id"])).status_code == 200
    assert all(ada.token.encode() not in data for _, _, data in bus.sent)

    bus.lose_requests("wga.rpc.*.*.open")
    assert (await there.delete((await there.open(region="fra"))["id"])).status_code == 200
    await exits.settled()
    before = host.left()
    bus.lose_answers("wga.rpc.*.*.open", times=2)
    refused(await there.post(region="fra"), 503, FAILED)
    await exits.carry_out()
    assert (exits.intents(), host.left()) == (0, before)
    with bus.hold("wga.rpc.*.*.open"):
        refused(await there.post(region="fra"), 503, FAILED)
        await exits.carry_out()
    await exits.settled()
    assert (exits.intents(), host.left()) == (0, before)


@on_fleet("ams", "fra", config_text="[tiers.paid]\nmax_live_sessions = 0\n")
async def test_a_crowd_and_a_long_list_pass_the_hubs(exits: ExitsUnderTest) -> None:
    """Many sessions are opened at once on the other exit: each is answered, nothing is left of one that was refused.
    They are in one list, as long as one may be; cut off, the host goes on by itself."""
    bus = await by_bus(exits, longest_s=PATIENT_S)
    ada = await exits.client()
    opened = await asyncio.gather(*(ada.at("ams").post(region="fra") for _ in range(CROWD)))
    opened += await asyncio.gather(*(ada.at("fra").post(region="fra") for _ in range(MOST_LISTED - CROWD)))
    done = sorted(answer.json()["id"] for answer in opened if answer.status_code == 201)
    assert {answer.status_code for answer in opened} <= {201, 503}
    async with asyncio.timeout(PATIENT_S):
        while exits.intents():
            await exits.carry_out()
    assert len(exits["fra"].exit_.tunnel.peers) == len(done) > 0
    async with asyncio.timeout(PATIENT_S):  # it lacks what an exit does not answer within a second
        while sorted(await listed(ada)) != done:
            pass
    bus.cut(exits["ams"].node_id)
    assert await listed(ada) == []
    refused(await ada.at("ams").status_answer(done[0]), 503, FAILED)
    await ada.at("ams").open(region="ams")


async def listed(client: FleetClient) -> list[str]:
    answer = await client.at("ams").get("/v1/sessions", limit=str(MOST_LISTED), live="true")
    return [each["id"] for each in answer.json()["sessions"]]
