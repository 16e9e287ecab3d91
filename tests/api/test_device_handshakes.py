"""Each byte of a device belongs to a session: also of handshakes that come to nothing, or come when they may not."""

from __future__ import annotations

import sqlite3

import pytest
from msgspec.structs import replace

from appliance.domain.tiers import Tier
from appliance.network.wireguard.keys import encode
from appliance.network.wireguard.tunnel import SocketAddress
from appliance.store.database import Store
from tests.support.api.a_device import DeviceUnderTest, a_device, add, new_device
from tests.support.api.device_owner import Owner, key_of
from tests.support.api.exit_under_test import ExitUnderTest, new_key, on_exit

IDLE = '[tiers.paid]\nidle_timeout = "5m"\n'
ONE_AT_A_TIME = "[tiers.free]\nidle_timeout = 0\nmax_live_sessions = 1\n"
A_KILOBYTE = "[tiers.free]\nidle_timeout = 0\nbytes_limit = 1000\n"
AT = SocketAddress(bytes([192, 0, 2, 7]), 4500)


def unowned(exit_: ExitUnderTest) -> float | None:
    return exit_.metrics.registry.get_sample_value("wg_appliance_unowned_bytes_total")


def ends(phone: DeviceUnderTest) -> list[tuple[str, str | None, int, int]]:
    return [session[:4] for session in phone.sessions()]


async def changed_while_its_session_opens(phone: DeviceUnderTest, sql: str) -> None:
    """Its handshake is found, and another process is faster than the batch that stores its session."""
    exit_ = phone.exit_
    exit_.tunnel.add_traffic(phone.key, rx=148, tx=92, handshake_ns=exit_.clock.wall_ms * 1_000_000)
    await exit_.parts.ticker.tick()
    with sqlite3.connect(exit_.path) as other:
        other.execute(sql)
    other.close()
    await exit_.settled()
    await exit_.admin("SELECT 1")


# Handshakes that may not be admitted -----------------------------------------------------------------


@on_exit(ONE_AT_A_TIME)
async def test_two_at_once_where_one_may(exit_: ExitUnderTest) -> None:
    """Both have shaken hands when the exit looks: one is connected, the other's bytes are of a session that ends."""
    account = await exit_.account(tier=Tier.FREE)
    phone, laptop = await a_device(exit_, account), await a_device(exit_, account, 10, "laptop")
    phone.sends(100, 50)
    laptop.sends(200, 60)
    await exit_.shake(phone.key, laptop.key)
    await exit_.tick()
    await exit_.tick()
    found = {each.id: ends(each) for each in (phone, laptop)}
    (connected,) = [each for each in (phone, laptop) if found[each.id][0][0] == "live"]
    other = laptop if connected is phone else phone
    assert found[other.id] == [("terminated", "live_session_limit", *((200, 60) if other is laptop else (100, 50)))]
    assert (connected.has_peer, other.has_peer) == (True, False)
    ((used,),) = exit_.rows("SELECT bytes_used FROM accounts")
    assert used == 410


@on_exit(A_KILOBYTE)
async def test_as_its_account_runs_out(exit_: ExitUnderTest) -> None:
    """What it has moved when it may no longer counts, and is of a session that ends for that reason."""
    account = await exit_.account(tier=Tier.FREE)
    phone, laptop = await a_device(exit_, account), await a_device(exit_, account, 10, "laptop")
    await phone.shakes()
    phone.sends(1001)
    laptop.sends(148, 92)
    await exit_.shake(laptop.key)
    for _ in range(2):
        await exit_.tick()
    assert ends(phone) == [("terminated", "quota_exceeded", 1001, 0)]
    assert ends(laptop) == [("terminated", "quota_exceeded", 148, 92)]
    assert not laptop.has_peer
    assert exit_.rows("SELECT bytes_used FROM accounts") == [(1241,)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE node SET drained = 1", "drained"),
        ("UPDATE accounts SET disabled = 1", "admin"),
        ("UPDATE devices SET paused = 1", "paused"),
    ],
)
@on_exit(IDLE)
async def test_as_it_is_held(exit_: ExitUnderTest, change: str, reason: str) -> None:
    """A handshake that an operator's command overtakes: its session ends at once, has the bytes, and no time."""
    phone = await a_device(exit_, await exit_.account())
    phone.sends(148, 92)
    await exit_.admin(change)
    await exit_.shake(phone.key)
    for _ in range(2):
        await exit_.tick(after=1)
    assert phone.sessions() == [("terminated", reason, 148, 92, 0)]
    assert not phone.has_peer
    assert phone.totals() == (148, 92, 0)
    assert exit_.rows("SELECT bytes_in, bytes_out, seconds FROM invoice_lines") == [(148, 92, 0)]


# Handshakes that come to nothing ---------------------------------------------------------------------


@on_exit(IDLE)
async def test_they_go_to_the_next_session(exit_: ExitUnderTest) -> None:
    """Also when the peer goes meanwhile, or the process: held and back, a restart, the interface made anew."""
    phone = await a_device(exit_, await exit_.account())
    for number in range(2):
        phone.sends(444, 276)
        await exit_.tick()
        await exit_.admin("UPDATE node SET drained = ?", 1)
        await exit_.tick()
        assert not phone.has_peer
        await exit_.restart()
        await exit_.admin("UPDATE node SET drained = ?", 0)
        await exit_.tick()
        assert exit_.tunnel.peers[phone.key].rx_bytes == 0, number
    phone.sends(100, 10)
    await exit_.tick(after=10)
    exit_.tunnel.vanish()
    await exit_.tick(after=1)
    phone.sends(7, 3)
    await exit_.tick()
    await phone.shakes()
    exit_.tunnel.vanish()  # before the session's first reading
    await exit_.tick(after=1)
    assert ends(phone) == [("live", None, 995, 565)]
    await exit_.restart()
    phone.sends(5)
    await exit_.tick(after=1)
    assert ends(phone) == [("live", None, 1000, 565)]
    assert exit_.rows("SELECT sum(bytes_in), sum(bytes_out) FROM invoice_lines") == [(1000, 565)]
    assert unowned(exit_) == 0


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE devices SET removed_at = 1",
        "UPDATE devices SET public_key = zeroblob(32), unfinished_rx = 0, unfinished_tx = 0",
    ],
)
@on_exit(IDLE)
async def test_they_are_dropped_where_no_session_can_come(exit_: ExitUnderTest, change: str) -> None:
    """Of a device that is removed, or has another key: with what a dump has shown since, and what was counted."""
    phone = await a_device(exit_, await exit_.account())
    phone.sends(444, 276)
    await exit_.tick()
    phone.sends(148, 92)
    await exit_.admin(change)
    await exit_.tick()
    assert not phone.has_peer
    assert phone.sessions() == []
    assert unowned(exit_) == 960
    await exit_.tick()
    assert unowned(exit_) == 960


@on_exit(IDLE)
async def test_a_key_that_another_device_has_at_once(exit_: ExitUnderTest) -> None:
    """What its peer moves then is that device's: it is not dropped with what was its predecessor's."""
    ada, (key, raw) = await Owner.of(exit_), new_key()
    before = await ada.add(client_public_key=key)
    exit_.tunnel.add_traffic(raw, rx=1000)
    await exit_.tick()
    await ada.remove(before["id"])
    await ada.add(client_public_key=key)
    exit_.tunnel.add_traffic(raw, rx=7)
    await exit_.shake(raw)
    await exit_.tick()
    assert exit_.rows("SELECT sum(bytes_in) FROM invoice_lines") == [(7,)]
    assert unowned(exit_) == 1000


@on_exit(IDLE)
async def test_removed_while_its_session_opens(exit_: ExitUnderTest) -> None:
    """Its handshake is found, and before the session is stored another process removes the device."""
    phone = await a_device(exit_, await exit_.account())
    await changed_while_its_session_opens(phone, "UPDATE devices SET removed_at = 1")
    await exit_.tick()
    assert phone.sessions() == []
    assert not phone.has_peer
    assert unowned(exit_) == 240


@on_exit(IDLE)
async def test_the_old_key_and_the_new_one(exit_: ExitUnderTest) -> None:
    """Both shake hands as the key is changed: the old one's bytes are of its session, which ends, the new one's of the
    next. Once the command is done the old one is dead."""
    phone = await a_device(exit_, await exit_.account())
    phone.sends(100, 50)
    await phone.shakes()
    _, new = new_key()
    await exit_.admin("UPDATE sessions SET state = 'closing', reason = 'rotated'")
    await exit_.admin("UPDATE devices SET public_key = ?, installed = 0", new)
    phone.sends(10, 5)
    await phone.shakes()
    assert (phone.has_peer, new in exit_.tunnel.peers) == (False, True)
    exit_.tunnel.add_traffic(new, rx=7, tx=3)
    await exit_.shake(new)
    await exit_.tick(after=1)
    assert ends(phone) == [("terminated", "rotated", 110, 55), ("live", None, 7, 3)]
    assert unowned(exit_) == 0


@on_exit(IDLE)
async def test_paused_while_its_session_opens(exit_: ExitUnderTest) -> None:
    """What the command has not seen begin does not stay."""
    phone = await a_device(exit_, await exit_.account())
    await changed_while_its_session_opens(phone, "UPDATE devices SET paused = 1")
    for _ in range(3):
        await exit_.tick()
    assert ends(phone) == [("terminated", "paused", 148, 92)]
    assert not phone.has_peer


@pytest.mark.parametrize("change", ["pause", "rotate", "remove"])
@on_exit(IDLE)
async def test_changed_while_its_session_cannot_open(exit_: ExitUnderTest, *, change: str) -> None:
    """The exit is drained as its owner changes it, and its handshake is found: its bytes wait for the next session, or
    are dropped where none can come."""
    ada = await Owner.of(exit_)
    phone = (await ada.add())["id"]
    key = key_of(exit_, phone)
    exit_.tunnel.add_traffic(key, rx=148, tx=92, handshake_ns=exit_.clock.wall_ms * 1_000_000)
    await exit_.admin("UPDATE node SET drained = 1")
    path = {"rotate": f"/v1/devices/{phone}/rotate"}.get(change, f"/v1/devices/{phone}")
    method = {"pause": "PATCH", "rotate": "POST", "remove": "DELETE"}[change]
    assert (await ada.ask(method, path, {"paused": True})).status_code == 200
    assert key not in exit_.tunnel.peers
    await exit_.tick()
    await exit_.tick()
    assert exit_.rows("SELECT id FROM sessions") == []
    assert unowned(exit_) == (0 if change == "pause" else 240)
    kept = exit_.rows("SELECT unfinished_rx, unfinished_tx FROM devices WHERE removed_at IS NULL")
    assert kept == {"pause": [(148, 92)], "rotate": [(0, 0)], "remove": []}[change]


@on_exit(IDLE)
async def test_the_store_fails_as_its_session_opens(exit_: ExitUnderTest) -> None:
    """The session begins as soon as the store can be written, with all that was moved meanwhile."""
    phone = await a_device(exit_, await exit_.account())
    exit_.tunnel.add_traffic(phone.key, rx=148, tx=92, handshake_ns=exit_.clock.wall_ms * 1_000_000)
    async with exit_.locked():
        await exit_.parts.ticker.tick()
        await exit_.settled()
    assert phone.sessions() == []
    phone.sends(10)
    for _ in range(2):
        await exit_.tick(after=1)
    assert ends(phone) == [("live", None, 158, 92)]


@on_exit(IDLE)
async def test_found_as_a_request_is_served(exit_: ExitUnderTest) -> None:
    """The dump that shows its handshake first is one of a batch, which commits: its session begins all the same."""
    ada = await exit_.client()
    phone = await a_device(exit_, ada.account)
    _, key = new_key()
    await ada.open(client_public_key=encode(key))
    await exit_.tick()
    exit_.tunnel.add_traffic(phone.key, rx=148, tx=92, handshake_ns=exit_.clock.wall_ms * 1_000_000)
    await ada.open(client_public_key=encode(key))  # replaces the first: counters are read
    for _ in range(2):
        await exit_.tick()
    assert ends(phone) == [("live", None, 148, 92)]


@on_exit('[tiers.paid]\nmax_session = "1h"\nidle_timeout = 0\n')
async def test_the_store_fails_as_its_next_session_begins(exit_: ExitUnderTest) -> None:
    """The next session of one that has expired begins without a handshake, as soon as the store can be written."""
    phone = await a_device(exit_, await exit_.account())
    await phone.shakes()
    exit_.clock.advance(3600)
    await exit_.parts.ticker.tick()
    async with exit_.locked():
        await exit_.settled()
    phone.sends(10)
    for _ in range(2):
        await exit_.tick(after=1)
    assert ends(phone) == [("terminated", "expired", 0, 0), ("live", None, 10, 0)]


@pytest.mark.parametrize("running", [True, False])
@on_exit(IDLE)
async def test_the_same_key_again(exit_: ExitUnderTest, *, running: bool) -> None:
    """Another device gets the key of one that was removed: what its peer has moved is not billed once more."""
    ada, bob = await exit_.account(), await exit_.account("bob")
    phone = await a_device(exit_, ada)
    phone.sends(1000, 500)
    await phone.shakes()
    await exit_.tick(after=400)
    if not running:
        await exit_.stop()
    with sqlite3.connect(exit_.path) as other:
        other.execute("UPDATE devices SET removed_at = 1")
        other.execute("UPDATE sessions SET state = 'closing', reason = 'closed' WHERE state = 'live'")
    other.close()
    if not running:
        exit_.tunnel = type(exit_.tunnel)(exit_.tunnel.interface)
        exit_.store = await Store.open(exit_.path)
    await add(exit_, again := replace(new_device(exit_, bob, 12), public_key=phone.key))
    if not running:
        await exit_.store.close()
        await exit_.start()
    await exit_.tick()
    await exit_.tick()
    assert exit_.tunnel.peers[phone.key].rx_bytes == 0
    exit_.tunnel.add_traffic(phone.key, rx=7, tx=3)
    await exit_.shake(phone.key)
    await exit_.restart()
    await exit_.tick()
    assert ends(phone) == [("terminated", "closed", 1000, 500)]
    assert ends(DeviceUnderTest(exit_, again.id, phone.key)) == [("live", None, 7, 3)]


@on_exit(IDLE)
async def test_the_same_key_again_held(exit_: ExitUnderTest) -> None:
    """A new device that may not connect has no peer, also where one with its key is left."""
    ada = await exit_.account()
    phone = await a_device(exit_, ada)
    await exit_.admin("UPDATE devices SET installed = 0, paused = 1")
    await exit_.tick()
    assert not phone.has_peer
    await exit_.admin("UPDATE devices SET paused = 0")
    await exit_.tick()
    assert phone.has_peer


@on_exit('[tiers.paid]\nmax_session = "1h"\nidle_timeout = 0\n')
async def test_the_process_ends_before_its_next_session_begins(exit_: ExitUnderTest) -> None:
    """The next process begins it: the tunnel can still carry."""
    phone = await a_device(exit_, await exit_.account())
    await phone.shakes()
    exit_.clock.advance(3600)
    await exit_.parts.ticker.tick()
    async with exit_.locked():
        await exit_.settled()
    phone.sends(10)
    await exit_.restart()
    await exit_.settled()
    await exit_.tick(after=1)
    assert ends(phone) == [("terminated", "expired", 0, 0), ("live", None, 10, 0)]


# Time ------------------------------------------------------------------------------------------------


@on_exit(IDLE, reject_after_ms=180_000)
async def test_a_handshake_while_the_process_was_away(exit_: ExitUnderTest) -> None:
    """Its session begins when it was: the tunnel has carried since."""
    phone = await a_device(exit_, await exit_.account())
    await exit_.tick()
    await exit_.stop()
    exit_.clock.advance(600)
    exit_.tunnel = type(exit_.tunnel)(exit_.tunnel.interface)
    exit_.tunnel.add_traffic(phone.key, rx=148, tx=92, handshake_ns=(exit_.clock.wall_ms - 60_000) * 1_000_000)
    await exit_.start()
    await exit_.settled()
    await exit_.tick(after=5)
    assert phone.sessions() == [("live", None, 148, 92, 65_000)]
    ((created_at,),) = exit_.rows("SELECT created_at FROM sessions")
    assert created_at == exit_.clock.wall_ms - 65_000
    await exit_.tick(after=400)
    assert phone.sessions() == [("terminated", "idle", 148, 92, 180_000)]


@on_exit(IDLE, reject_after_ms=180_000)
async def test_a_handshake_that_an_earlier_process_has_found(exit_: ExitUnderTest) -> None:
    """Its heartbeat came after the handshake, its session did not: the tunnel carries no longer for that."""
    phone = await a_device(exit_, await exit_.account())
    exit_.tunnel.add_traffic(phone.key, rx=148, tx=92, handshake_ns=exit_.clock.wall_ms * 1_000_000)
    exit_.clock.advance(100)
    await exit_.parts.ticker.tick()
    async with exit_.locked():
        await exit_.settled()
    await exit_.restart()
    await exit_.tick(after=200)
    assert phone.sessions() == [("live", None, 148, 92, 80_000)]


@on_exit(A_KILOBYTE)
async def test_the_wall_clock_is_set_back_while_it_is_held(exit_: ExitUnderTest) -> None:
    """A window that begins more than its length from now holds nobody."""
    account = await exit_.account(tier=Tier.FREE)
    phone = await a_device(exit_, account)
    await phone.shakes()
    phone.sends(1001)
    for _ in range(2):
        await exit_.tick(after=1)
    assert not phone.has_peer
    exit_.clock.step(-8 * 86_400)
    await exit_.tick(after=1)
    assert phone.has_peer


# Where it was ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("connected", [True, False])
@on_exit(IDLE)
async def test_held_and_back_where_it_was(exit_: ExitUnderTest, *, connected: bool) -> None:
    """A device that may connect again is called where it was last seen, until it shakes hands."""
    phone = await a_device(exit_, await exit_.account())
    exit_.tunnel.add_traffic(phone.key, rx=1, endpoint=AT)
    await exit_.tick()
    if connected:
        await phone.shakes()
        await exit_.admin("UPDATE sessions SET state = 'closing', reason = 'paused'")
    await exit_.admin("UPDATE devices SET paused = 1")
    for _ in range(50):
        await exit_.tick(after=60)
    assert not phone.has_peer
    await exit_.admin("UPDATE devices SET paused = 0")
    await exit_.tick()
    assert (exit_.tunnel.peers[phone.key].endpoint, exit_.tunnel.peers[phone.key].keepalive_s) == (AT, 25)
    await phone.shakes()
    await exit_.tick()
    assert exit_.tunnel.peers[phone.key].keepalive_s == 0


@on_exit(IDLE)
async def test_closed_and_not_called(exit_: ExitUnderTest) -> None:
    """Who was told to go begins the next session, if anybody does: not the exit."""
    ada = await exit_.client()
    phone = await a_device(exit_, ada.account)
    exit_.tunnel.add_traffic(phone.key, rx=1, endpoint=AT)
    await phone.shakes()
    await exit_.tick()
    ((session_id,),) = exit_.rows("SELECT id FROM sessions")
    assert (await ada.delete(session_id)).status_code == 200
    for _ in range(3):
        await exit_.tick()
    assert (exit_.tunnel.peers[phone.key].endpoint, exit_.tunnel.peers[phone.key].keepalive_s) == (None, 0)
