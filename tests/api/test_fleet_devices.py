"""Devices of a fleet: any host's API makes, shows, changes and removes them on any exit; names are the account's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from appliance.network.wireguard import keys
from tests.support.api.answers import refused
from tests.support.api.device_owner import Owner, key_of, private_key
from tests.support.api.exit_under_test import new_key
from tests.support.fleet.exits_under_test import on_fleet

if TYPE_CHECKING:
    from tests.support.fleet.exits_under_test import ExitsUnderTest, FleetClient

FAILED = "peer apply failed; node may be disconnected"


def at(client: FleetClient, name: str) -> Owner:
    return Owner(client.at(name))


@on_fleet("ams", "fra")
async def test_a_device_is_served_by_every_route_through_either_api(exits: ExitsUnderTest) -> None:
    """Made through the other API it is as if its own had made it; both show, rename, pause, rotate and remove it."""
    ada = await exits.client()
    made = await at(ada, "ams").add("phone", region="fra")
    exit_ = exits["fra"].exit_
    assert made["public_ip"] == "192.0.2.2"
    assert "Endpoint = 192.0.2.2:51820" in made["wg_config"]
    assert made["id"].endswith(exit_.parts.node.id_mark)
    assert keys.public_key(private_key(made)) == key_of(exit_, made["id"])
    for api in ("ams", "fra"):
        assert await at(ada, api).get(made["id"]) == await at(ada, "fra").get(made["id"])
        renamed = await at(ada, api).patch(made["id"], name=f"phone of {api}")
        assert renamed.status_code == 200, renamed.text
        assert renamed.json()["name"] == f"phone of {api}"
        paused = await at(ada, api).patch(made["id"], paused=True)
        assert paused.json()["state"] == "paused"
        await at(ada, api).patch(made["id"], paused=False)
        rotated = await at(ada, api).rotate(made["id"], dns=["9.9.9.9"])
        assert rotated.status_code == 200, rotated.text
        assert "DNS = 9.9.9.9" in rotated.json()["wg_config"]
        assert keys.public_key(private_key(rotated.json())) == key_of(exit_, made["id"])
    removed = await at(ada, "ams").remove(made["id"])
    assert (removed.status_code, removed.json()["state"]) == (200, "removed")
    for api in ("ams", "fra"):
        for answer in (
            await at(ada, api).ask("GET", f"/v1/devices/{made['id']}"),
            await at(ada, api).patch(made["id"], paused=True),
            await at(ada, api).rotate(made["id"]),
            await at(ada, api).remove(made["id"]),
        ):
            refused(answer, 404, "device not found")
    await exits.settled()
    assert exits.ledger.held() == {}
    assert exits.ledger.names() == 0


@on_fleet("ams", "fra")
async def test_a_device_that_is_older_than_the_fleet_is_served_through_either_api(exits: ExitsUnderTest) -> None:
    """Its id does not say where it is. One that no exit has is not found."""
    ada = await exits.client()
    node = exits["fra"].exit_.parts.node
    mark, node.id_mark = node.id_mark, ""
    made = await at(ada, "fra").add("phone", region="fra")
    node.id_mark = mark
    assert not made["id"].endswith(mark)
    assert await at(ada, "ams").get(made["id"]) == await at(ada, "fra").get(made["id"])
    assert (await at(ada, "ams").patch(made["id"], name="old phone")).json()["name"] == "old phone"
    assert (await at(ada, "ams").rotate(made["id"])).status_code == 200
    assert (await at(ada, "ams").remove(made["id"])).json()["state"] == "removed"
    refused(await at(ada, "ams").ask("GET", f"/v1/devices/{made['id']}"), 404, "device not found")


@on_fleet("ams", "fra")
async def test_a_devices_session_names_it_through_either_api(exits: ExitsUnderTest) -> None:
    """The session that a device's handshake opens is shown by the other API too, with the device's name."""
    ada = await exits.client()
    made = await at(ada, "ams").add("phone", region="fra")
    key = key_of(exits["fra"].exit_, made["id"])
    await exits["fra"].exit_.shake(key)
    exits["fra"].exit_.tunnel.add_traffic(key, rx=500, tx=700)
    await exits["fra"].exit_.tick(3)
    own, other = await at(ada, "fra").get(made["id"]), await at(ada, "ams").get(made["id"])
    assert own == other
    assert (other["state"], other["bytes_in"], other["seconds"]) == ("connected", 500, 3)
    session = await ada.at("ams").status(other["session_id"])
    assert (session["device_id"], session["device_name"]) == (made["id"], "phone")
    listed = (await ada.at("ams").get("/v1/sessions")).json()["sessions"]
    assert [each["device_name"] for each in listed] == ["phone"]
    ended = await ada.at("ams").delete(session["id"])
    assert made["id"] in ended.json()["hint"]


@on_fleet("ams", "fra")
async def test_names_are_unique_in_an_account_across_exits(exits: ExitsUnderTest) -> None:
    """A name that a device of another exit has is taken, for a new one and a rename, until that one is gone."""
    ada, bob = await exits.client(), await exits.client("bob")
    phone = await at(ada, "ams").add("phone", region="fra")
    refused(await at(ada, "ams").post("phone", region="ams"), 409, "device name taken")
    await at(bob, "ams").add("phone", region="ams")
    tablet = await at(ada, "fra").add("tablet", region="ams")
    for api in ("ams", "fra"):
        refused(await at(ada, api).patch(tablet["id"], name="phone"), 409, "device name taken")
        assert (await at(ada, api).patch(tablet["id"], name="tablet")).status_code == 200
    await at(ada, "ams").patch(phone["id"], name="old phone")
    assert (await at(ada, "fra").patch(tablet["id"], name="phone")).status_code == 200
    await at(ada, "ams").remove(phone["id"])
    await at(ada, "ams").add("old phone", region="ams")
    assert exits["ams"].exit_.rows("SELECT count(*) FROM devices WHERE removed_at IS NULL") == [(3,)]


@on_fleet("ams", "fra")
async def test_a_key_is_one_devices_in_the_whole_fleet(exits: ExitsUnderTest) -> None:
    """A key that a device or session of the account has elsewhere is in use; another account's is refused."""
    ada, bob = await exits.client(), await exits.client("bob")
    text, _ = new_key()
    await at(ada, "ams").add("phone", region="fra", client_public_key=text)
    refused(await at(ada, "ams").post("other", region="ams", client_public_key=text), 409, "key in use")
    refused(await ada.at("fra").post(region="ams", client_public_key=text), 409, "key in use")
    refused(
        await at(bob, "ams").post("other", region="ams", client_public_key=text),
        400,
        "client_public_key is in use by another account",
    )
    other, _ = new_key()
    await ada.at("ams").open(region="ams", client_public_key=other)
    refused(await at(ada, "ams").post("other", region="fra", client_public_key=other), 409, "key in use")
    assert ("other",) not in exits["ams"].exit_.rows("SELECT name FROM devices")
    assert exits.ledger.names() == 1


@on_fleet("ams", "fra", "nyc")
async def test_lists_have_the_devices_of_all_exits_in_pages(exits: ExitsUnderTest) -> None:
    """Pages through any API have each device once, the newest first; without those of an exit that is away."""
    ada = await exits.client()
    made = [(await at(ada, "ams").add(f"d{n}", region=("ams", "fra", "nyc")[n % 3]))["id"] for n in range(7)]
    for api in ("ams", "fra"):
        listed, query = [], {}
        while page := (await at(ada, api).ask("GET", "/v1/devices", limit="3", **query)).json()["devices"]:
            listed += [each["id"] for each in page]
            query = {"before": listed[-1]}
        assert sorted(listed) == sorted(made)
    await exits["fra"].exit_.shake(key_of(exits["fra"].exit_, made[1]))  # its session keeps its place
    await at(ada, "ams").remove(made[1])
    assert (await at(ada, "ams").ask("GET", "/v1/devices", before=made[1])).status_code == 200
    refused(
        await at(ada, "ams").ask("GET", "/v1/devices", before="dev_" + "0" * 24),
        400,
        "before must be the id of a device",
    )
    await exits["nyc"].stop()
    there = [each["id"] for each in (await at(ada, "ams").ask("GET", "/v1/devices")).json()["devices"]]
    assert set(there) == {made[0], made[3], made[6], made[4]}
    for method, path in (("GET", ""), ("PATCH", ""), ("POST", "/rotate"), ("DELETE", "")):
        body = {"paused": True} if method == "PATCH" else {}
        refused(await at(ada, "ams").ask(method, f"/v1/devices/{made[2]}{path}", body), 503, FAILED)


@on_fleet("ams", "fra")
async def test_a_drained_exit_takes_devices_through_its_own_api(exits: ExitsUnderTest) -> None:
    """As on a single host: a device of a drained exit is made, and held."""
    ada = await exits.client()
    await exits["ams"].exit_.admin("UPDATE node SET drained = 1")
    await exits["ams"].exit_.tick()
    made = await at(ada, "ams").add("phone", region="ams")
    assert (await at(ada, "fra").get(made["id"]))["held_reason"] == "drained"
    refused(await at(ada, "fra").post("other", region="ams"), 503, "no active node in region ams", available=["fra"])


@pytest.mark.parametrize("words", [("lost", "lost"), ("unanswered", "unanswered"), ("late", "late")])
@on_fleet("ams", "fra")
async def test_of_a_device_that_is_not_answered_nothing_is_left(exits: ExitsUnderTest, words: tuple[str, str]) -> None:
    """The client is told 503; once the exit has answered the abort, no device, address, peer or claim is left."""
    ada = await exits.client()
    before = exits["fra"].left()
    exits.wire.fault("fra", "device_add", *words)
    refused(await at(ada, "ams").post("phone", region="fra"), 503, FAILED)
    await exits.wire.release()
    if words[0] != "lost":
        await exits["fra"].restart()
    await exits.carry_out()
    assert exits.intents() == 0
    assert exits["fra"].left() == before
    assert exits.ledger.held() == {}
    assert exits.ledger.names() == 0
    await at(ada, "ams").add("phone", region="fra")


@on_fleet("ams", "fra")
async def test_a_change_whose_answer_is_lost_is_made_once(exits: ExitsUnderTest) -> None:
    """Asked again, a rename, a rotation and a removal answer as they would have the first time."""
    ada = await exits.client()
    for restarted in (False, True):
        made = await at(ada, "ams").add("phone", region="fra")
        for operation in ("device_add", "device_change", "device_rotate", "device_remove"):
            exits.wire.fault("fra", operation, "unanswered")
        assert (await at(ada, "ams").patch(made["id"], name="other")).json()["name"] == "other"
        rotated = await at(ada, "ams").rotate(made["id"])
        assert keys.public_key(private_key(rotated.json())) == key_of(exits["fra"].exit_, made["id"])
        if restarted:
            await exits["fra"].restart()
        removed = await at(ada, "ams").remove(made["id"])
        assert removed.json()["state"] == "removed"
        second = await at(ada, "ams").add("phone", region="fra")
        await at(ada, "ams").remove(second["id"])
        assert exits["fra"].exit_.rows("SELECT count(*) FROM devices WHERE removed_at IS NULL") == [(0,)]
