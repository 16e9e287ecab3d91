"""An account has no more than its share, whatever requests and handshakes come at once, and no less."""

from __future__ import annotations

import asyncio

import pytest

from appliance.domain.tiers import Tier
from tests.support.api.answers import refused
from tests.support.api.device_owner import Owner, key_of
from tests.support.api.exit_under_test import IMPATIENT, ExitUnderTest, new_key, on_exit

ONE_AT_A_TIME = "[tiers.free]\nidle_timeout = 0\nmax_live_sessions = 1\n"


@on_exit(ONE_AT_A_TIME)
async def test_a_request_and_a_handshake_in_one_batch(exit_: ExitUnderTest) -> None:
    """Together they have the one session that their account may have."""
    ada = await Owner.of(exit_, tier=Tier.FREE)
    made = await ada.add()
    exit_.tunnel.add_traffic(key_of(exit_, made["id"]), rx=148, tx=92, handshake_ns=exit_.clock.wall_ms * 1_000_000)
    tick = asyncio.create_task(exit_.parts.ticker.tick(whole=False))
    opened = asyncio.create_task(ada.client.post())
    await tick
    assert (await opened).status_code == 201
    await exit_.tick()
    assert exit_.rows("SELECT state, reason, bytes_in FROM sessions ORDER BY device_id IS NULL") == [
        ("terminated", "live_session_limit", 148),
        ("live", None, 0),
    ]


@pytest.mark.parametrize("how", ["made", "resumed"])
@on_exit(ONE_AT_A_TIME)
async def test_a_place_that_is_free_for_a_moment(exit_: ExitUnderTest, *, how: str) -> None:
    """What a device may do is decided while no session is open, and no look comes before the next one is."""
    ada = await Owner.of(exit_, tier=Tier.FREE)
    phone = (await ada.add())["id"]
    before = await ada.client.open()
    await exit_.tick()
    await ada.client.delete(before["id"])
    if how == "made":
        phone = (await ada.add("other"))["id"]
    else:
        await ada.patch(phone, paused=True)
        await ada.patch(phone, paused=False)
    await ada.client.open()
    await exit_.tick()
    assert (await ada.get(phone))["held_reason"] == "live_session_limit"
    assert key_of(exit_, phone) not in exit_.tunnel.peers


@on_exit(ONE_AT_A_TIME)
async def test_a_place_that_is_taken_for_a_moment(exit_: ExitUnderTest) -> None:
    """A device that is resumed while another session is open connects once that has ended."""
    ada = await Owner.of(exit_, tier=Tier.FREE)
    phone = (await ada.add())["id"]
    await ada.patch(phone, paused=True)
    await exit_.tick()
    other = await ada.client.open()
    await ada.patch(phone, paused=False)
    await ada.client.delete(other["id"])
    await exit_.tick()
    assert (await ada.get(phone))["state"] == "idle"
    assert key_of(exit_, phone) in exit_.tunnel.peers


@on_exit(environ=IMPATIENT)
async def test_a_key_of_which_a_session_is_undone(exit_: ExitUnderTest) -> None:
    """A device does not get it before its peer is gone: it would take the device's with it."""
    ada, (key, _) = await Owner.of(exit_), new_key()
    phone = (await ada.add())["id"]
    exit_.tunnel.gate.clear()
    failing = exit_.http.post(
        "/v1/sessions", json={"region": "fsn", "client_public_key": key}, headers=ada.client.headers
    )
    assert (await failing).status_code == 503
    rotating = asyncio.create_task(ada.rotate(phone, client_public_key=key))
    await asyncio.sleep(0)
    exit_.tunnel.gate.set()
    refused(await rotating, 503, "peer apply failed; node may be disconnected")
    await exit_.tick()
    assert (await ada.rotate(phone, client_public_key=key)).status_code == 200
    await exit_.tick()
    assert set(exit_.tunnel.peers) == {key_of(exit_, phone)}
