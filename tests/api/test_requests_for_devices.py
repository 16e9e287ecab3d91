"""Devices over HTTP: made, shown, listed, changed, given another key, removed."""

from __future__ import annotations

import asyncio

import pytest

from appliance.domain.tiers import Tier
from appliance.network.wireguard import keys
from appliance.store.queries import devices as rows
from tests.support.api.answers import refused
from tests.support.api.device_owner import Owner, key_of, private_key
from tests.support.api.exit_under_test import ExitUnderTest, address, new_key, on_exit

LIMITED = "[tiers.free]\nidle_timeout = 0\nmax_live_sessions = 1\nbytes_limit = 1000\n"


@on_exit()
async def test_made_and_shown(exit_: ExitUnderTest) -> None:
    """The answer has the whole file, whose key's peer is in the tunnel; GET tells what is known, and no secret."""
    ada = await Owner.of(exit_)
    made = await ada.add("Ada's ☎️")
    key = key_of(exit_, made["id"])
    assert made.keys() == {"id", "name", "region", "public_ip", "wg_config", "created_at", "tier"}
    assert (made["name"], made["region"], made["public_ip"], made["tier"]) == ("Ada's ☎️", "fsn", "192.0.2.1", "paid")
    assert keys.public_key(private_key(made)) == key
    assert key in exit_.tunnel.peers
    assert "DNS" not in made["wg_config"]
    found = await ada.get(made["id"])
    assert found == {
        **{name: made[name] for name in ("id", "name", "region", "public_ip", "created_at")},
        "public_key": keys.encode(key),
        "state": "idle",
        "bytes_in": 0,
        "bytes_out": 0,
        "seconds": 0,
    }
    await exit_.tick(after=1)
    assert key in exit_.tunnel.peers
    assert exit_.parts.node.health.fault is None


@on_exit(reject_after_ms=180_000)
async def test_its_sessions_are_opened_by_handshakes(exit_: ExitUnderTest) -> None:
    """A handshake opens a session of the device, which both say; totals are of all sessions, the running one too."""
    ada = await Owner.of(exit_)
    made = await ada.add()
    key = key_of(exit_, made["id"])
    await exit_.shake(key)
    exit_.tunnel.add_traffic(key, rx=100, tx=200)
    await exit_.tick(after=10)
    found = await ada.get(made["id"])
    assert (found["state"], found["bytes_in"], found["bytes_out"], found["seconds"]) == ("connected", 100, 200, 10)
    session = await ada.client.status(found["session_id"])
    assert (session["device_id"], session["device_name"]) == (made["id"], "phone")
    assert session["last_handshake_at"] == found["last_handshake_at"]
    ended = (await ada.client.delete(found["session_id"])).json()
    assert f"PATCH /v1/devices/{made['id']}" in ended["hint"]
    assert key not in exit_.tunnel.peers
    found = await ada.get(made["id"])
    assert (found["state"], found["bytes_in"], found["seconds"]) == ("idle", 100, 10)
    assert "session_id" not in found
    await exit_.tick(after=1)
    await exit_.shake(key)
    exit_.tunnel.add_traffic(key, rx=1)
    await exit_.tick(after=10)
    found = await ada.get(made["id"])
    assert (found["bytes_in"], found["seconds"]) == (101, 20)
    rented = await ada.client.open()
    (newest, *others) = (await ada.client.get("/v1/sessions")).json()["sessions"]
    assert (newest["id"], newest.keys() & {"device_id", "device_name", "hint"}) == (rented["id"], set())
    assert [s["device_name"] for s in others] == ["phone"] * 2
    assert "hint" not in (await ada.client.delete(rented["id"])).json()


@on_exit()
async def test_a_removed_devices_sessions_have_its_name(exit_: ExitUnderTest) -> None:
    """Its last name, also of a session that has ended."""
    ada = await Owner.of(exit_)
    made = await ada.add()
    await exit_.shake(key_of(exit_, made["id"]))
    session_id = (await ada.get(made["id"]))["session_id"]
    assert (await ada.patch(made["id"], name="old phone")).json()["name"] == "old phone"
    assert (await ada.client.status(session_id))["device_name"] == "old phone"
    await ada.remove(made["id"])
    session = await ada.client.status(session_id)
    assert (session["device_name"], session["terminated_reason"]) == ("old phone", "closed")


@on_exit()
async def test_removed(exit_: ExitUnderTest) -> None:
    """Before the answer its peer has gone and its session has ended with all that it used; its address is free."""
    ada = await Owner.of(exit_)
    made, before = await ada.add(), exit_.parts.pool.in_use
    key = key_of(exit_, made["id"])
    await exit_.shake(key)
    session_id = (await ada.get(made["id"]))["session_id"]
    exit_.tunnel.add_traffic(key, rx=77)
    exit_.clock.advance(5)
    gone = (await ada.remove(made["id"])).json()
    assert (gone["state"], gone["bytes_in"], gone["seconds"], gone["name"]) == ("removed", 77, 5, "phone")
    assert "session_id" not in gone
    assert key not in exit_.tunnel.peers
    assert exit_.state_of(session_id) == ("terminated", "closed")
    assert exit_.rows("SELECT bytes_in, counted_ms FROM sessions") == [(77, 5000)]
    assert exit_.egress.forgotten[-1][0] == address(made)
    assert exit_.parts.pool.in_use == before - 1
    for answer in (await ada.remove(made["id"]), await ada.ask("GET", f"/v1/devices/{made['id']}")):
        refused(answer, 404, "device not found")
    await exit_.tick(after=1)
    assert not exit_.tunnel.peers
    again = await ada.add()
    assert again["id"] != made["id"]


@on_exit()
async def test_paused_and_resumed(exit_: ExitUnderTest) -> None:
    """Paused: its session ends and its peer goes before the answer. Resumed: the peer is there with the next look."""
    ada = await Owner.of(exit_)
    made = await ada.add()
    key = key_of(exit_, made["id"])
    await exit_.shake(key)
    session_id = (await ada.get(made["id"]))["session_id"]
    exit_.tunnel.add_traffic(key, rx=5)
    answer = await ada.patch(made["id"], paused=True)
    assert (answer.json()["state"], answer.json()["bytes_in"]) == ("paused", 5)
    assert key not in exit_.tunnel.peers
    assert exit_.state_of(session_id) == ("terminated", "paused")
    assert (await ada.patch(made["id"], paused=True)).json()["state"] == "paused"
    await exit_.tick(after=1)
    assert key not in exit_.tunnel.peers
    answer = await ada.patch(made["id"], paused=False, name="telephone")
    assert (answer.json()["state"], answer.json()["name"]) == ("idle", "telephone")
    assert exit_.parts.wakeup.pending
    await exit_.tick()
    assert key in exit_.tunnel.peers
    assert (await ada.patch(made["id"], paused=False)).json()["state"] == "idle"
    await exit_.shake(key)
    assert (await ada.get(made["id"]))["state"] == "connected"


@on_exit()
async def test_rotated_while_it_carries(exit_: ExitUnderTest) -> None:
    """The old key's session ends with all that it used; the new key has the same address; the old one opens nothing."""
    ada = await Owner.of(exit_)
    made = await ada.add()
    old = key_of(exit_, made["id"])
    await exit_.shake(old)
    session_id = (await ada.get(made["id"]))["session_id"]
    exit_.tunnel.add_traffic(old, rx=500)
    answer = await ada.rotate(made["id"], dns=["9.9.9.9"])
    assert answer.status_code == 200
    after = answer.json()
    new = key_of(exit_, made["id"])
    assert keys.public_key(private_key(after)) == new != old
    assert address(after) == address(made)
    assert "DNS = 9.9.9.9\n" in after["wg_config"]
    assert {name: after[name] for name in made if name != "wg_config"} == {
        name: made[name] for name in made if name != "wg_config"
    }
    assert set(exit_.tunnel.peers) == {new}
    assert exit_.state_of(session_id) == ("terminated", "rotated")
    assert (await ada.get(made["id"]))["bytes_in"] == 500
    await exit_.shake(new)
    exit_.tunnel.add_traffic(new, rx=3)
    await exit_.tick(after=1)
    found = await ada.get(made["id"])
    assert (found["state"], found["bytes_in"], found["public_key"]) == ("connected", 503, keys.encode(new))


@on_exit('dns = ["1.1.1.1"]\n')
async def test_the_files_resolvers_and_ip_versions(exit_: ExitUnderTest) -> None:
    """The operator's resolvers where none are asked for; no line for false; `ipv6` false leaves IPv6 out for good."""
    ada = await Owner.of(exit_)
    assert "DNS = 1.1.1.1\n" in (await ada.add("a"))["wg_config"]
    assert "DNS = 1.1.1.1\n" in (await ada.add("b", dns=None))["wg_config"]
    assert "DNS" not in (await ada.add("c", dns=False))["wg_config"]
    without = await ada.add("d", ipv6=False)
    assert "AllowedIPs = 0.0.0.0/0\n" in without["wg_config"]
    refused(await ada.rotate(without["id"], dns=["2620:fe::fe"]), 400, "dns has no IPv4 address, and ipv6 is false")
    again = (await ada.rotate(without["id"])).json()
    assert "AllowedIPs = 0.0.0.0/0\n" in again["wg_config"]
    own, raw = new_key()
    theirs = (await ada.rotate(without["id"], client_public_key=own)).json()
    assert "PrivateKey" not in theirs["wg_config"]
    assert raw in exit_.tunnel.peers


@on_exit()
async def test_no_body_where_all_fields_are_optional(exit_: ExitUnderTest) -> None:
    """A rotation takes none at all for {}; white space is no JSON there either, and no other request may be empty."""
    ada = await Owner.of(exit_)
    one = f"/v1/devices/{(await ada.add())['id']}"
    answer = await ada.ask("POST", f"{one}/rotate")
    assert (answer.request.content, answer.status_code) == (b"", 200)
    assert private_key(answer.json())
    for method, path, body in (("POST", f"{one}/rotate", b" "), ("POST", "/v1/devices", b""), ("PATCH", one, b"")):
        refused(await exit_.http.request(method, path, content=body, headers=ada.client.headers), 400, "invalid json")


@on_exit()
async def test_listed_in_pages(exit_: ExitUnderTest) -> None:
    """Newest first; a page goes on after any id that the account has had; others' are not seen."""
    ada, bob = await Owner.of(exit_), await Owner.of(exit_, "bob")
    ids = [(await ada.add(name))["id"] for name in "abcd"][::-1]
    theirs = (await bob.add("a"))["id"]

    async def page(**query: str) -> list[str]:
        return [d["id"] for d in (await ada.ask("GET", "/v1/devices", **query)).json()["devices"]]

    assert await page() == ids
    assert await page(limit="3") == ids[:3]
    assert await page(limit="3", before=ids[1]) == ids[2:]
    assert await page(before=ids[-1]) == []
    for query in ({"limit": "0"}, {"limit": "201"}, {"before": "x"}, {"before": theirs}, {"before": "dev_" + "0" * 24}):
        refused(await ada.ask("GET", "/v1/devices", **query), 400)
    head = await ada.ask("HEAD", "/v1/devices")
    assert (head.status_code, head.content) == (200, b"")


@on_exit(LIMITED)
async def test_held_ones_are_made_all_the_same(exit_: ExitUnderTest) -> None:
    """Where an account may not connect now, a device has no peer, says why, and gets its peer when it may."""
    ada = await Owner.of(exit_, tier=Tier.FREE)
    phone = await ada.add()
    key = key_of(exit_, phone["id"])
    await exit_.shake(key)
    exit_.tunnel.add_traffic(key, rx=1001)
    await exit_.tick(after=1)
    tablet = await ada.add("tablet")
    assert key_of(exit_, tablet["id"]) not in exit_.tunnel.peers
    found = await ada.get(tablet["id"])
    assert (found["state"], found["held_reason"]) == ("held", "quota_exceeded")
    assert found["held_until"] == (await ada.client.get("/v1/usage")).json()["bytes_window_resets_at"]
    rotated = await ada.rotate(tablet["id"])
    assert rotated.status_code == 200
    assert not exit_.tunnel.peers
    await exit_.tick(after=7 * 86400)
    assert set(exit_.tunnel.peers) == {key, key_of(exit_, tablet["id"])}


@on_exit()
async def test_made_while_the_exit_is_drained(exit_: ExitUnderTest) -> None:
    """A drained exit makes devices and holds them; in no other region there is one."""
    ada = await Owner.of(exit_)
    await exit_.admin("UPDATE node SET drained = 1")
    await exit_.tick()
    made = await ada.add()
    assert not exit_.tunnel.peers
    assert (await ada.get(made["id"]))["held_reason"] == "drained"
    refused(await ada.post("b", region="nowhere"), 503, "no active nodes")
    await exit_.admin("UPDATE node SET drained = 0")
    await exit_.tick()
    assert set(exit_.tunnel.peers) == {key_of(exit_, made["id"])}


@on_exit()
async def test_a_file_that_names_another_address_is_stale(exit_: ExitUnderTest) -> None:
    """Until it is made anew."""
    ada = await Owner.of(exit_)
    made = await ada.add()
    exit_.parts.node.public_ip = "192.0.2.7"
    assert (await ada.get(made["id"]))["stale"] == ["endpoint"]
    assert "Endpoint = 192.0.2.7:51820\n" in (await ada.rotate(made["id"])).json()["wg_config"]
    found = await ada.get(made["id"])
    assert ("stale" in found, found["public_ip"]) == (False, "192.0.2.7")


@pytest.mark.parametrize("others", [True, False])
@on_exit()
async def test_a_command_and_a_request_at_once(exit_: ExitUnderTest, *, others: bool) -> None:
    """A device that a command has just changed is changed as the store has it."""
    ada = await Owner.of(exit_)
    made = await ada.add()
    old, (_, raw) = key_of(exit_, made["id"]), new_key()
    await exit_.shake(old)
    async with exit_.store.write() as db:  # as `device rotate` does, but for the session
        await rows.rotate(db, made["id"], raw, "192.0.2.1:51820")
    if others:
        assert (await ada.remove(made["id"])).status_code == 200
        assert not exit_.tunnel.peers
    else:
        assert (await ada.rotate(made["id"])).status_code == 200
        assert set(exit_.tunnel.peers) == {key_of(exit_, made["id"])}
    assert exit_.rows("SELECT reason FROM sessions") == [("closed" if others else "rotated",)]
    await exit_.tick(after=1)
    assert len(exit_.tunnel.peers) == (0 if others else 1)
    assert exit_.parts.live.in_sync


@on_exit()
async def test_two_names_at_once(exit_: ExitUnderTest) -> None:
    """Of two requests for one name, however its accents are written, one gets it."""
    ada = await Owner.of(exit_)
    for first, second in (("phone", "phone"), ("caf\u00e9", "cafe\u0301")):
        answers = await asyncio.gather(ada.post(first), ada.post(second))
        good, bad = sorted(answers, key=lambda answer: answer.status_code)
        assert good.status_code == 201
        refused(bad, 409, "device name taken")
    assert exit_.parts.pool.in_use == len(exit_.tunnel.peers) == 2
