"""Requests for devices that are refused: each for the first reason that holds, and nothing is left or changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from appliance.domain.tiers import Tier
from appliance.network.wireguard import keys
from appliance.sessions.batch_closes import CloseRequest
from appliance.store.queries import node as node_row
from tests.support.api.a_device import a_device, add, new_device
from tests.support.api.answers import refused
from tests.support.api.device_owner import Owner, key_of
from tests.support.api.exit_under_test import SERVER_KEY, UNHURRIED, ExitUnderTest, new_key, on_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from appliance.domain.entities import Session
    from appliance.sessions.waiting import Waiting

TWO = "[tiers.free]\nmax_devices = 2\n"
NOBODY = "dev_" + "0" * 24


def holdings(exit_: ExitUnderTest) -> tuple[object, ...]:
    return (
        exit_.rows("SELECT * FROM devices ORDER BY number"),
        exit_.parts.pool.in_use,
        exit_.tunnel.peers,
        sorted(device.id for device in exit_.parts.records.devices),
    )


@on_exit()
async def test_bodies_that_are_not_valid(exit_: ExitUnderTest) -> None:
    """The message names the field; unknown fields are ignored, and `null` is as good as left out."""
    ada = await Owner.of(exit_)
    phone = await ada.add()
    before = holdings(exit_)
    bad: list[tuple[dict[str, object], str]] = [
        ({"name": None}, "name is required"),
        ({"name": ""}, "name must be 1 to 64 characters, not 0"),
        ({"name": " \t"}, "name must be 1 to 64 characters, not 0"),
        ({"name": "x" * 65}, "name must be 1 to 64 characters, not 65"),
        ({"name": "a\u200bb"}, "name must be printable: it contains U+200B ZERO WIDTH SPACE"),
        ({"name": "a\x07"}, "name must be printable: it contains U+0007"),
        ({"name": "a/b"}, "name must not contain /"),
        ({"name": 5}, "name must be text"),
        ({"region": "FSN"}, "region must match ^[a-z0-9][a-z0-9-]{0,31}$"),
        ({"client_public_key": "x"}, "client_public_key must be 44 characters of base64"),
        ({"client_public_key": keys.encode(bytes(32))}, "client_public_key is all zero"),
        ({"client_public_key": keys.encode(keys.public_key(SERVER_KEY))}, ""),
        ({"ipv6": 1}, "ipv6 must be true or false"),
        ({"dns": True}, "dns must be false or a list of 1 to 3 IP addresses"),
    ]
    for fields, message in bad:
        answer = await ada.ask("POST", "/v1/devices", {"name": "b", "region": "fsn", **fields})
        refused(answer, 400)
        field = next(iter(fields))
        assert answer.json()["error"].startswith(field), answer.text
        assert field == "client_public_key" or answer.json()["error"] == message
    for body in (
        {"paused": 1},
        {"paused": "true"},
        {"name": 5},
        {"name": "", "paused": True},
        {"paused": 0, "name": "b"},
    ):
        refused(await ada.ask("PATCH", f"/v1/devices/{phone['id']}", body), 400)
    refused(await ada.rotate(phone["id"], client_public_key="x"), 400)
    refused(await ada.rotate(phone["id"], dns=[]), 400)
    for method, path in (("POST", ""), ("PATCH", f"/{phone['id']}"), ("POST", f"/{phone['id']}/rotate")):
        answer = await exit_.http.request(method, f"/v1/devices{path}", content=b"[]", headers=ada.client.headers)
        refused(answer, 400, "invalid json")
    assert holdings(exit_) == before
    same = await ada.ask(
        "PATCH", f"/v1/devices/{phone['id']}", {"id": "x", "state": "held", "name": None, "paused": None}
    )
    assert same.json() == await ada.get(phone["id"])


@on_exit(UNHURRIED)
async def test_tokens_and_ids(exit_: ExitUnderTest) -> None:
    """401 without a token that is good; 404 alike for an unknown, a malformed, a removed and another's device."""
    ada, bob = await Owner.of(exit_), await Owner.of(exit_, "bob")
    phone, gone, theirs = await ada.add(), await ada.add("gone"), await bob.add()
    await ada.remove(gone["id"])
    paths = [("POST", ""), ("GET", ""), ("GET", "/x"), ("PATCH", "/x"), ("DELETE", "/x"), ("POST", "/x/rotate")]
    for method, path in paths:
        url = f"/v1/devices{path.replace('x', phone['id'])}"
        refused(await exit_.http.request(method, url, json={}), 401, "missing token")
        headers = {"Authorization": "Bearer wga_nothing"}
        refused(await exit_.http.request(method, url, json={}, headers=headers), 401, "invalid token")
    before = holdings(exit_)
    for device_id in (NOBODY, "x", gone["id"], theirs["id"]):
        refused(await ada.ask("GET", f"/v1/devices/{device_id}"), 404, "device not found")
        refused(await ada.patch(device_id, name="b", paused=True), 404, "device not found")
        refused(await ada.rotate(device_id), 404, "device not found")
        refused(await ada.remove(device_id), 404, "device not found")
    assert holdings(exit_) == before
    answer = await exit_.http.request("OPTIONS", f"/v1/devices/{phone['id']}")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"


@on_exit()
async def test_names_that_are_taken(exit_: ExitUnderTest) -> None:
    """In one account, however accents are written; a device may keep its name, or write it another way."""
    ada, bob = await Owner.of(exit_), await Owner.of(exit_, "bob")
    cafe, phone = await ada.add("caf\u00e9"), await ada.add()
    await bob.add("caf\u00e9")
    before = holdings(exit_)
    refused(await ada.post("cafe\u0301"), 409, "device name taken")
    refused(await ada.patch(phone["id"], name="cafe\u0301 ", paused=True), 409, "device name taken")
    assert holdings(exit_) == before
    assert (await ada.patch(cafe["id"], name="cafe\u0301")).json()["name"] == "cafe\u0301"
    await ada.remove(cafe["id"])
    await ada.add("caf\u00e9")


@on_exit()
async def test_keys_that_are_taken(exit_: ExitUnderTest) -> None:
    """Another account's: 400; of a device or live session of the same account: 409, the device's own one too."""
    ada, bob = await Owner.of(exit_), await Owner.of(exit_, "bob")
    (of_device, raw), (of_session, _), (theirs, _), (rented, _) = (new_key() for _ in range(4))
    phone = await ada.add(client_public_key=of_device)
    session = await ada.client.open(client_public_key=of_session)
    await bob.add(client_public_key=theirs)
    await bob.client.open(client_public_key=rented)
    before = holdings(exit_)
    for key in (of_device, of_session):
        refused(await ada.post("b", client_public_key=key), 409, "key in use")
        refused(await ada.rotate(phone["id"], client_public_key=key), 409, "key in use")
    for key in (theirs, rented):
        other = "client_public_key is in use by another account"
        refused(await ada.post("phone", client_public_key=key), 400, other)
        refused(await ada.rotate(NOBODY, client_public_key=key), 400, other)
    refused(await ada.client.post(client_public_key=of_device), 409, "key in use")
    assert holdings(exit_) == before
    await ada.client.delete(session["id"])
    assert (await ada.rotate(phone["id"], client_public_key=of_session)).status_code == 200
    assert raw not in exit_.tunnel.peers
    await ada.add("b", client_public_key=of_device)


@on_exit(TWO)
async def test_as_many_as_the_tier_allows(exit_: ExitUnderTest) -> None:
    """A removed one makes room; anonymous accounts may have none; of two requests for the last place one gets it."""
    ada, nobody = await Owner.of(exit_, tier=Tier.FREE), await Owner.of(exit_, "nobody", Tier.ANONYMOUS)
    phone = await ada.add()
    answers = await asyncio.gather(ada.post("b"), ada.post("c"))
    good, bad = sorted(answers, key=lambda answer: answer.status_code)
    assert good.status_code == 201
    refused(bad, 403, "device limit reached")
    refused(await ada.post("phone"), 409, "device name taken")
    refused(await nobody.post(), 403, "device limit reached")
    await ada.remove(phone["id"])
    await ada.add("d")


@on_exit('subnet = "10.101.0.0/29"\nsubnet6 = ""\n')
async def test_no_place_for_it(exit_: ExitUnderTest) -> None:
    """Devices and sessions have their addresses from one pool; a region without a node is named, as for sessions."""
    ada = await Owner.of(exit_)
    refused(await ada.post(region="nowhere"), 503, "no active node in region nowhere", available=["fsn"])
    for name in "abc":
        await ada.add(name)
    await ada.client.open()
    await ada.client.open()
    refused(await ada.post("phone"), 503, "subnet exhausted")
    refused(await ada.client.post(), 503, "subnet exhausted")
    first = (await ada.ask("GET", "/v1/devices")).json()["devices"][-1]["id"]
    exit_.egress.gate.clear()
    await ada.remove(first)
    asking = asyncio.create_task(ada.post("phone"))
    await asyncio.sleep(0)
    exit_.egress.gate.set()
    assert (await asking).status_code == 201
    exit_.parts.node.health.check_fault = "the WireGuard interface is gone"
    refused(await ada.post("late"), 503, "no active nodes")


@on_exit()
async def test_what_commands_have_taken(exit_: ExitUnderTest) -> None:
    """A command's device that the server has not seen yet: its name, its key and its address are not given away."""
    ada = await Owner.of(exit_)
    device = new_device(exit_, ada.client.account, offset=2, name="phone")
    await add(exit_, device)
    refused(await ada.post("phone"), 409, "device name taken")
    refused(await ada.post("b", client_public_key=keys.encode(device.public_key)), 409, "key in use")
    await ada.add("b")
    await exit_.tick()
    assert exit_.rows("SELECT count(*) FROM devices WHERE removed_at IS NULL") == [(2,)]
    assert len({peer.allowed_ips for peer in exit_.tunnel.peers.values()}) == len(exit_.tunnel.peers) == 2


@pytest.mark.parametrize("change", ["pause", "rotate", "remove"])
@on_exit()
async def test_changed_while_its_session_opens(exit_: ExitUnderTest, *, change: str) -> None:
    """The handshake's session begins and ends with all of its bytes; no byte is of nobody, no peer is left."""
    ada = await Owner.of(exit_)
    made = await ada.add()
    key = key_of(exit_, made["id"])
    exit_.tunnel.add_traffic(key, rx=100, tx=50, handshake_ns=exit_.clock.wall_ms * 10**6)
    if change == "pause":
        assert (await ada.patch(made["id"], paused=True)).json()["state"] == "paused"
    elif change == "rotate":
        assert (await ada.rotate(made["id"])).status_code == 200
    else:
        assert (await ada.remove(made["id"])).json()["bytes_in"] == 100
    assert key not in exit_.tunnel.peers
    reason = {"pause": "paused", "rotate": "rotated", "remove": "closed"}[change]
    ended = exit_.rows("SELECT state, reason, bytes_in, bytes_out FROM sessions")
    assert ended == [("terminated", reason, 100, 50)]
    await exit_.tick(after=1)
    assert len(exit_.tunnel.peers) == (change == "rotate")
    assert exit_.metrics.registry.get_sample_value("wg_appliance_unowned_bytes_total") == 0


class Restless(CloseRequest):
    """A request before whose answer another comes, so that the queue never rests."""

    resting = False

    def __init__(self, exit_: ExitUnderTest, session: Session) -> None:
        super().__init__(session)
        self.exit_, self.session = exit_, session

    def succeed(self, result: None) -> None:
        if not Restless.resting:
            self.exit_.parts.queue.put(Restless(self.exit_, self.session))
        super().succeed(result)


@on_exit()
async def test_paused_on_a_busy_exit(exit_: ExitUnderTest) -> None:
    """It waits for the session of its device, and for nobody else's."""
    ada = await Owner.of(exit_)
    made = await ada.add()
    exit_.tunnel.add_traffic(key_of(exit_, made["id"]), rx=100, handshake_ns=exit_.clock.wall_ms * 10**6)
    other = exit_.parts.live[exit_.key_of((await ada.client.open())["id"])]
    await ada.client.delete(other.id)
    queue = exit_.parts.queue
    serve = queue._serve

    async def serve_and_pause(cut: Callable[[], Sequence[Waiting[Any]]]) -> bool:
        await asyncio.sleep(0.001)
        return await serve(cut)

    queue._serve = serve_and_pause  # type: ignore[method-assign]  # as long as the store takes
    queue.put(Restless(exit_, other))
    try:
        path = f"/v1/devices/{made['id']}"
        answer = await exit_.http.patch(path, json={"paused": True}, headers=ada.client.headers)
    finally:
        Restless.resting = True
        await exit_.settled()
    assert (answer.status_code, answer.json()["bytes_in"]) == (200, 100)


@on_exit()
async def test_a_command_removes_it_meanwhile(exit_: ExitUnderTest) -> None:
    """Its id is unknown at once, also before the server has looked."""
    ada = await Owner.of(exit_)
    phone = await a_device(exit_, ada.client.account)
    async with exit_.store.write() as db:
        await db.execute("UPDATE devices SET removed_at = 1 WHERE id = ?", (phone.id,))
        await node_row.request(db)
    refused(await ada.patch(phone.id, paused=True), 404, "device not found")
    refused(await ada.remove(phone.id), 404, "device not found")
    await exit_.tick()
    assert not exit_.tunnel.peers
