"""Exits of a fleet ask each other over the hubs, sealed: the parts as they are joined on a host, on a bus in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.api.answers import refused
from tests.support.api.device_owner import Owner
from tests.support.fleet.exits_under_test import on_fleet
from tests.support.fleet.rpc_by_bus import by_bus

if TYPE_CHECKING:
    from tests.support.fleet.exits_under_test import ExitsUnderTest

FAILED = "peer apply failed; node may be disconnected"


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
    """200 sessions are opened at once on the other exit, and are in one list; cut off, the host goes on by itself."""
    bus = await by_bus(exits)
    ada = await exits.client()
    opened = await asyncio.gather(*(ada.at("ams").post(region="fra") for _ in range(200)))
    done = [answer.json()["id"] for answer in opened if answer.status_code == 201]
    assert {answer.status_code for answer in opened} <= {201, 503}
    async with asyncio.timeout(30):
        while exits.intents():
            await exits.carry_out()
    assert len(exits["fra"].exit_.tunnel.peers) == len(done) > 100
    listed = (await ada.at("ams").get("/v1/sessions", limit="200", live="true")).json()["sessions"]
    assert sorted(each["id"] for each in listed) == sorted(done)
    bus.cut(exits["ams"].node_id)
    assert (await ada.at("ams").get("/v1/sessions")).json()["sessions"] == []
    refused(await ada.at("ams").status_answer(done[0]), 503, FAILED)
    await ada.at("ams").open(region="ams")
