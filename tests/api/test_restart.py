"""The process, the interface or the host goes and comes back: sessions, addresses and totals stand."""

from __future__ import annotations

import asyncio

import pytest

from appliance.config.load import parse_settings
from appliance.domain.errors import ConfigError
from appliance.store.queries import devices as device_rows
from tests.support.api.a_device import a_device
from tests.support.api.answers import refused
from tests.support.api.exit_under_test import CONFIG, ExitUnderTest, new_key, on_exit, stranger, until


@on_exit()
async def test_a_new_process_bills_what_moved_meanwhile(exit_: ExitUnderTest) -> None:
    """A new process finds everything in place, drops nobody, and bills what moved meanwhile."""
    ada = await exit_.client()
    text, raw = new_key()
    session_id = (await ada.open(client_public_key=text))["id"]
    exit_.tunnel.add_traffic(raw, rx=100, tx=200)
    await exit_.tick()
    before = exit_.holdings()
    exit_.tunnel.add_traffic(raw, rx=11, tx=22)
    await exit_.restart()
    status = await ada.status(session_id)
    assert (status["bytes_in"], status["bytes_out"]) == (111, 222)
    assert exit_.tunnel.applied == []
    assert exit_.holdings()[0::3] == before[0::3]
    assert exit_.parts.pool.in_use == 1
    assert exit_.parts.meter.bytes_in == 11


@on_exit('subnet = "10.101.0.0/29"\n')
async def test_a_new_process_hands_out_no_taken_address(exit_: ExitUnderTest) -> None:
    """A new process hands out no address that a live session has."""
    ada = await exit_.client()
    sessions = [await ada.open() for _ in range(4)]
    await ada.delete(sessions[1]["id"])
    await exit_.restart()
    new = await ada.open()
    assert "Address = 10.101.0.3/32" in new["wg_config"] or "Address = 10.101.0.6/32" in new["wg_config"]
    await ada.open()
    refused(await ada.post(), 503, "subnet exhausted")


@on_exit()
async def test_a_reboot_restores_peers_and_bills_in_full(exit_: ExitUnderTest) -> None:
    """After a reboot the peers are there again, nobody is idle, and counters from zero are billed in full."""
    ada = await exit_.client()
    text, raw = new_key()
    session_id = (await ada.open(client_public_key=text))["id"]
    exit_.tunnel.add_traffic(raw, rx=100, handshake_ns=exit_.clock.wall_ms * 10**6)
    await exit_.tick(after=200)
    exit_.tunnel.vanish()
    exit_.clock.reboot(seconds=4000)
    await exit_.restart()
    assert exit_.state_of(session_id) == ("live", None)
    assert set(exit_.tunnel.peers) == {raw}
    exit_.tunnel.add_traffic(raw, rx=150)
    await exit_.tick(after=299)
    assert exit_.state_of(session_id) == ("live", None)
    assert (await ada.status(session_id))["bytes_in"] == 250
    await exit_.tick(after=2)
    assert exit_.state_of(session_id) == ("terminated", "idle")


@on_exit()
async def test_reboot_with_the_same_ifindex(exit_: ExitUnderTest) -> None:
    """The interface of another boot is another one, also where its number and its counters look the same."""
    ada = await exit_.client()
    text, raw = new_key()
    session_id = (await ada.open(client_public_key=text))["id"]
    exit_.tunnel.add_traffic(raw, rx=100)
    await exit_.tick()
    exit_.clock.reboot()
    await exit_.restart()
    assert (await ada.status(session_id))["bytes_in"] == 200


@on_exit('[tiers.paid]\nmax_session = "1h"\n')
async def test_a_session_expired_meanwhile_ends_at_the_start(exit_: ExitUnderTest) -> None:
    """A session that expired while nothing ran ends at the start."""
    ada = await exit_.client()
    session_id = (await ada.open())["id"]
    exit_.clock.advance(7200)
    await exit_.restart()
    assert exit_.state_of(session_id) == ("terminated", "expired")
    assert not exit_.tunnel.peers


@on_exit()
async def test_ended_by_an_admin_meanwhile(exit_: ExitUnderTest) -> None:
    """What admin commands wrote while nothing ran is done at the start; a drain survives it."""
    ada = await exit_.client()
    session_id = (await ada.open())["id"]
    await exit_.admin("UPDATE sessions SET state = 'closing', reason = 'drained'")
    await exit_.admin("UPDATE node SET drained = 1")
    await exit_.restart()
    assert exit_.state_of(session_id) == ("terminated", "drained")
    assert not exit_.tunnel.peers
    refused(await ada.post(), 503, "no active nodes")


@on_exit()
async def test_crash_in_the_middle_of_a_request(exit_: ExitUnderTest) -> None:
    """The process died between the peer and its row: address and peer are gone after the start."""
    ada = await exit_.client()
    text, raw = new_key()
    kept = await ada.open()
    exit_.tunnel.gate.clear()
    asking = asyncio.create_task(ada.post(client_public_key=text))
    await until(lambda: exit_.tunnel.waiting, "the request is admitted")
    serving = exit_.parts.queue._serving
    assert serving is not None
    for task in (asking, serving):
        task.cancel()
        await asyncio.wait({task})
    exit_.tunnel.interface.peers[raw] = stranger(raw)
    exit_.tunnel.gate.set()
    await exit_.restart()
    assert exit_.rows("SELECT id FROM sessions") == [(kept["id"],)]
    assert exit_.parts.pool.in_use == 1
    assert raw not in exit_.tunnel.peers


CHANGES = {
    "subnet": 'subnet = "10.102.0.0/24"',
    "subnet6": 'subnet6 = "fd65:7869:7401::/112"',
    "no subnet6": 'subnet6 = ""',
    "interface": 'interface = "wga1"',
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@on_exit()
async def test_change_that_strands_sessions(exit_: ExitUnderTest, change: str) -> None:
    """A setting that live sessions cannot follow is refused at start, naming them; without any it is taken."""
    ada = await exit_.client()
    session_id = (await ada.open())["id"]
    unchanged, exit_.settings = exit_.settings, parse_settings(CONFIG + change, {}, "host")
    with pytest.raises(ConfigError, match=session_id) as refusal:
        await exit_.restart()
    assert f"wireguard.{change.split()[0]}" in str(refusal.value)
    exit_.settings = unchanged
    await exit_.start()
    assert exit_.state_of(session_id) == ("live", None)
    await ada.delete(session_id)
    exit_.settings = parse_settings(CONFIG + change, {}, "host")
    await exit_.restart()
    await ada.open()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@on_exit()
async def test_change_that_strands_devices(exit_: ExitUnderTest, change: str) -> None:
    """A setting that devices' files name is refused at start with their count, whether or not they are connected."""
    account = await exit_.account()
    phone = await a_device(exit_, account)
    unchanged, exit_.settings = exit_.settings, parse_settings(CONFIG + change, {}, "host")
    with pytest.raises(ConfigError, match="while there is 1 device; set it back"):
        await exit_.restart()
    exit_.settings = unchanged
    await exit_.start()
    assert phone.has_peer
    async with exit_.store.write() as db:
        await device_rows.remove(db, [phone.id], exit_.clock.wall_ms)
    exit_.settings = parse_settings(CONFIG + change, {}, "host")
    await exit_.restart()
    assert exit_.tunnel.peers == {}
