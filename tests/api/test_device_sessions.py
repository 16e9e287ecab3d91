"""Devices: peers that stay, whose sessions begin at handshakes and end as any other."""

from __future__ import annotations

import logging

import pytest

from appliance.domain.errors import TunnelError
from appliance.domain.tiers import Tier
from appliance.network.wireguard.keys import encode
from appliance.store.queries import devices as device_rows
from tests.support.api.a_device import a_device
from tests.support.api.exit_under_test import ExitUnderTest, on_exit

IDLE = '[tiers.paid]\nidle_timeout = "5m"\n'
LIMITED = "[tiers.free]\nidle_timeout = 0\nmax_live_sessions = 1\nbytes_limit = 1000\n"


@on_exit(IDLE, reject_after_ms=180_000)
async def test_a_session_begins_at_a_handshake_and_another_at_the_next(exit_: ExitUnderTest) -> None:
    """A device has its peer before it was ever used; each byte belongs to a session; the file stays good."""
    phone = await a_device(exit_, await exit_.account())
    assert phone.has_peer
    phone.sends(444, 276)  # a handshake that comes to nothing
    await exit_.tick(after=10)
    assert phone.sessions() == []
    await phone.shakes()
    await exit_.tick(after=10)
    phone.sends(1000, 2000)
    await exit_.tick(after=10)
    assert phone.sessions() == [("live", None, 1444, 2276, 20_000)]
    await exit_.tick(after=400)
    assert phone.sessions() == [("terminated", "idle", 1444, 2276, 180_000)]
    assert phone.has_peer
    assert phone.totals() == (1444, 2276, 180_000)
    phone.sends(5)
    await exit_.tick(after=3600)
    await phone.shakes()
    phone.sends(1)
    await exit_.tick(after=10)
    assert phone.sessions()[1:] == [("live", None, 6, 0, 10_000)]
    assert exit_.tunnel.peers[phone.key].rx_bytes == 1450


@on_exit(IDLE, reject_after_ms=180_000)
async def test_a_process_that_comes_and_goes(exit_: ExitUnderTest) -> None:
    """A restart keeps peers, sessions and what handshakes that came to nothing have moved."""
    phone = await a_device(exit_, await exit_.account())
    await phone.shakes()
    phone.sends(100)
    await exit_.restart()
    await exit_.tick(after=10)
    assert phone.sessions()[0][:3] == ("live", None, 100)
    await exit_.tick(after=400)
    phone.sends(7)
    await exit_.restart()
    await phone.shakes()
    await exit_.tick(after=1)
    assert [s[:3] for s in phone.sessions()] == [("terminated", "idle", 100), ("live", None, 7)]


@on_exit(IDLE, reject_after_ms=180_000)
async def test_closed_by_its_client(exit_: ExitUnderTest) -> None:
    """After a DELETE only a new handshake opens the next session: the peer is another one."""
    ada = await exit_.client()
    phone = await a_device(exit_, ada.account)
    await phone.shakes()
    phone.sends(100)
    (session_id,) = exit_.rows("SELECT id FROM sessions")[0]
    assert (await ada.delete(session_id)).status_code == 200
    assert not phone.has_peer
    await exit_.tick()
    assert phone.has_peer
    assert exit_.tunnel.peers[phone.key].rx_bytes == 0
    await exit_.tick(after=10)
    assert [s[:3] for s in phone.sessions()] == [("terminated", "closed", 100)]
    phone.sends(3)
    await phone.shakes()
    await exit_.tick(after=1)
    assert phone.sessions()[1][:3] == ("live", None, 3)


@on_exit('[tiers.paid]\nmax_session = "1h"\nidle_timeout = 0\n')
async def test_expired_while_it_carries(exit_: ExitUnderTest) -> None:
    """The next session begins at the same instant, without another handshake; no byte and no second is lost."""
    phone = await a_device(exit_, await exit_.account())
    await phone.shakes()
    phone.sends(100)
    await exit_.tick(after=3600)
    phone.sends(50)
    await exit_.tick(after=10)
    assert phone.sessions() == [("terminated", "expired", 100, 0, 3_600_000), ("live", None, 50, 0, 10_000)]


@on_exit(LIMITED)
async def test_held_while_its_quota_is_used_up(exit_: ExitUnderTest) -> None:
    """Its peer goes with the session, and comes back by itself when the window ends."""
    phone = await a_device(exit_, await exit_.account(tier=Tier.FREE))
    await phone.shakes()
    phone.sends(1001)
    await exit_.tick(after=1)
    await exit_.tick(after=1)
    assert [s[:3] for s in phone.sessions()] == [("terminated", "quota_exceeded", 1001)]
    assert not phone.has_peer
    await exit_.tick(after=6 * 86400)
    assert not phone.has_peer
    await exit_.tick(after=86400)
    assert phone.has_peer
    await phone.shakes()
    await exit_.tick(after=1)
    assert phone.sessions()[1][:2] == ("live", None)


@on_exit(LIMITED)
async def test_held_while_another_is_connected(exit_: ExitUnderTest) -> None:
    """As many sessions as the tier allows: an idle device has no peer until one has ended."""
    account = await exit_.account(tier=Tier.FREE)
    phone, laptop = await a_device(exit_, account), await a_device(exit_, account, 10, "laptop")
    await phone.shakes()
    await exit_.tick(after=1)
    assert (phone.has_peer, laptop.has_peer) == (True, False)
    await exit_.admin("UPDATE sessions SET state = 'closing', reason = 'admin'")
    await exit_.tick(after=1)
    await exit_.tick(after=1)
    assert (phone.has_peer, laptop.has_peer) == (True, True)


@pytest.mark.parametrize("how", ["UPDATE node SET drained = {}", "UPDATE accounts SET disabled = {}"])
@on_exit(IDLE)
async def test_held_by_an_admin(exit_: ExitUnderTest, how: str) -> None:
    """A drain or a disabled account takes the peers of idle devices, and gives them back."""
    phone = await a_device(exit_, await exit_.account())
    await exit_.admin(how.format(1))
    await exit_.tick()
    assert not phone.has_peer
    await exit_.admin(how.format(0))
    await exit_.tick()
    assert phone.has_peer


@on_exit(IDLE, reject_after_ms=180_000)
async def test_the_interface_is_made_anew(exit_: ExitUnderTest) -> None:
    """An idle device's peer is put back like any other, and its next session has the new counters alone."""
    phone = await a_device(exit_, await exit_.account())
    await phone.shakes()
    phone.sends(100)
    await exit_.tick(after=400)
    exit_.tunnel.vanish()
    await exit_.tick(after=1)
    assert phone.has_peer
    phone.sends(9)
    await phone.shakes()
    await exit_.tick(after=1)
    assert [s[2] for s in phone.sessions()] == [100, 9]


@on_exit(IDLE)
async def test_its_key_opens_no_session_of_another_kind(exit_: ExitUnderTest) -> None:
    """Its own account is told so, another one as little as of any key that is not its own; the peer stays as it is."""
    ada, bob = await exit_.client(), await exit_.client("bob")
    phone = await a_device(exit_, ada.account)
    before = exit_.tunnel.peers
    for client, told in ((ada, (409, "key in use")), (bob, (400, "client_public_key is in use by another account"))):
        for _ in range(2):
            answer = await client.post(client_public_key=encode(phone.key))
            assert (answer.status_code, answer.json()["error"]) == told
            assert exit_.tunnel.peers[phone.key].allowed_ips == before[phone.key].allowed_ips
            await phone.shakes()  # the second time it has a session
    assert exit_.rows("SELECT count(*) FROM sessions") == [(1,)]


@on_exit('[tiers.paid]\nidle_timeout = "20s"\n', reject_after_ms=180_000)
async def test_not_idle_while_its_tunnel_can_carry(exit_: ExitUnderTest) -> None:
    """What a tunnel carries is of a session, however short the idle timeout is."""
    phone = await a_device(exit_, await exit_.account())
    await phone.shakes()
    await exit_.tick(after=179)
    assert phone.sessions()[0][0] == "live"
    await exit_.tick(after=2)
    assert phone.sessions() == [("terminated", "idle", 0, 0, 180_000)]


@on_exit(IDLE)
async def test_peers_that_come_and_go_are_no_repairs(exit_: ExitUnderTest) -> None:
    """Devices that are added and held count as no differences, and as nobody's interference."""
    account = await exit_.account()
    for number in range(12):
        await a_device(exit_, account, 9 + number, f"phone {number}")
        await exit_.admin("UPDATE node SET drained = ?", number % 2)
        await exit_.tick()
    sampled = exit_.metrics.registry.get_sample_value
    for kind in ("peer_restored", "peer_removed"):
        assert sampled("wg_appliance_repairs_total", {"kind": kind}) == 0
    assert sampled("wg_appliance_contended", {"kind": "peer"}) in (0, None)


@on_exit()
async def test_the_log_names_devices_as_such(exit_: ExitUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    """Peers that were lost are restored: of a device without a session the log has its id, beside the sessions'."""
    session = await (await exit_.client()).open()
    phone = await a_device(exit_, await exit_.account("bob"))
    exit_.tunnel.interface.peers.clear()
    with caplog.at_level(logging.INFO):
        await exit_.tick(after=1)
    (told,) = (r.__dict__["fields"] for r in caplog.records if r.getMessage() == "peers restored")
    assert told == {"count": 2, "sessions": session["id"], "devices": phone.id}


@on_exit()
async def test_a_command_is_not_told_that_a_peer_is_gone_which_is_there(exit_: ExitUnderTest) -> None:
    """A device is paused that has no session, and the tunnel refuses to remove its peer."""
    phone = await a_device(exit_, await exit_.account())
    await exit_.admin("UPDATE devices SET paused = 1")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(exit_.tunnel, "apply", _refuse)
        await exit_.tick()
    assert phone.has_peer
    assert exit_.rows("SELECT requested > applied FROM node") == [(1,)]
    await exit_.tick()
    assert not phone.has_peer
    assert exit_.rows("SELECT requested > applied FROM node") == [(0,)]


@on_exit()
async def test_the_handshake_that_opened_a_session_is_known_after_a_restart(exit_: ExitUnderTest) -> None:
    ada = await exit_.client()
    phone = await a_device(exit_, ada.account)
    await phone.shakes()
    await exit_.restart()
    (session_id,) = exit_.rows("SELECT id FROM sessions")[0]
    assert "last_handshake_at" in await ada.status(session_id)


@on_exit()
async def test_an_end_that_is_stored_once_more(exit_: ExitUnderTest) -> None:
    """A commit that failed may have been made: the next batch stores the same end, and adds it to no total again."""
    ada = await exit_.client()
    phone = await a_device(exit_, ada.account)
    await phone.shakes()
    phone.sends(100)
    (session_id,) = exit_.rows("SELECT id FROM sessions")[0]
    await ada.delete(session_id)
    await exit_.tick()
    totals = phone.totals()
    assert totals[0] == 100
    async with exit_.store.write() as db:
        await device_rows.add_ended(db, [session_id])
    assert phone.totals() == totals


async def _refuse(_: object) -> None:
    raise TunnelError("refused")
