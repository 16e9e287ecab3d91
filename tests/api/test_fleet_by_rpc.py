"""Exits of a fleet ask each other over the hubs, sealed: the parts as they are joined on a host, on a bus in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from appliance.fleet.rpc.operations import ASK_ALL, DRAIN, VERIFY, DrainExit
from appliance.store.queries import fleet_requests
from tests.support.api.answers import refused
from tests.support.api.device_owner import Owner
from tests.support.fleet.exits_under_test import on_fleet
from tests.support.fleet.rpc_by_bus import by_bus

if TYPE_CHECKING:
    from tests.support.fleet.exits_under_test import ExitsUnderTest, FleetClient

FAILED = "peer apply failed; node may be disconnected"
CROWD, MOST_LISTED = 50, 200
PATIENT_S = 60.0


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


@on_fleet("ams", "fra", "sin")
async def test_a_hub_of_the_version_before_tells_its_own_lists(exits: ExitsUnderTest) -> None:
    """It knows no asking of all exits: it is asked for what it has itself, and no other exit is shown the token."""
    served = exits["ams"].any.owner._served
    assert exits["ams"].node_id == exits.hub
    exits["ams"].any.owner._served = {name: each for name, each in served.items() if name != ASK_ALL.name}
    bus = await by_bus(exits)
    ada = await exits.client()
    made = [(await ada.at("fra").open(region=region))["id"] for region in ("ams", "fra")]
    device = await Owner(ada.at("fra")).add("phone", region="ams")
    answer = await ada.at("fra").get("/v1/sessions")
    assert sorted(each["id"] for each in answer.json()["sessions"]) == sorted(made)
    answer = await ada.at("fra").get("/v1/devices")
    assert [each["id"] for each in answer.json()["devices"]] == [device["id"]]
    assert not any(subject.startswith(f"wga.rpc.{exits['sin'].node_id}.") for _, subject, _ in bus.sent)


@on_fleet("ams", "fra")
async def test_what_an_exit_of_the_version_before_cannot_do_keeps_nothing_else_waiting(exits: ExitsUnderTest) -> None:
    """It is asked again until it can."""
    hub, spoke = exits["ams"], exits["fra"]
    spoke.any.owner._served = {name: each for name, each in spoke.any.owner._served.items() if name != VERIFY.name}
    await by_bus(exits)
    asked = msgspec.json.encode(DrainExit(drained=True))
    async with hub.exit_.store.write() as db:
        await fleet_requests.intend(db, spoke.node_id, VERIFY.name, b"{}", hub.exit_.clock.wall_ms)
        await fleet_requests.intend(db, spoke.node_id, DRAIN.name, asked, hub.exit_.clock.wall_ms)
    await exits.carry_out()
    assert hub.exit_.rows("SELECT operation FROM fleet_intents") == [(VERIFY.name,)]
    assert spoke.exit_.rows("SELECT drained FROM node") == [(1,)]
