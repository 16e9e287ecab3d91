"""Ticks: what moved is billed, what has to end ends, and the tunnel is made equal to the store."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from appliance.domain.clock import rfc3339
from appliance.domain.errors import TunnelError
from appliance.domain.tiers import Tier
from tests.support.api.exit_under_test import Client, ExitUnderTest, new_key, on_exit, stranger
from tests.support.api.wayward_tunnel import WaywardTunnel

HOUR = 3600
DAY = 24 * HOUR


async def opened(exit_: ExitUnderTest, tier: Tier = Tier.PAID) -> tuple[Client, str, bytes]:
    """A client, its session's id and its key."""
    ada = await exit_.client(tier=tier)
    text, raw = new_key()
    return ada, (await ada.open(client_public_key=text))["id"], raw


def handshake(exit_: ExitUnderTest, raw: bytes) -> None:
    exit_.tunnel.add_traffic(raw, handshake_ns=exit_.clock.wall_ms * 10**6)


@on_exit()
async def test_the_figures_follow_the_tunnels(exit_: ExitUnderTest) -> None:
    """`bytes_in` is what the exit received, `bytes_out` what it sent: both after one tick."""
    ada, session_id, raw = await opened(exit_)
    for step in range(1, 4):
        exit_.tunnel.add_traffic(raw, rx=1000, tx=7)
        await exit_.tick(after=10)
        status = await ada.status(session_id)
        assert (status["bytes_in"], status["bytes_out"]) == (1000 * step, 7 * step)
    assert (exit_.parts.meter.bytes_in, exit_.parts.meter.bytes_out) == (3000, 21)


@on_exit()
async def test_large_counters_are_kept_exactly(exit_: ExitUnderTest) -> None:
    """Counters past 32 and 53 bits are kept exactly."""
    ada, session_id, raw = await opened(exit_)
    exit_.tunnel.add_traffic(raw, rx=2**53 + 1, tx=2**32 + 1)
    await exit_.tick()
    status = await ada.status(session_id)
    assert (status["bytes_in"], status["bytes_out"]) == (2**53 + 1, 2**32 + 1)


@on_exit()
async def test_the_last_handshake_is_the_tunnels(exit_: ExitUnderTest) -> None:
    """The last handshake is the one that the tunnel reports."""
    ada, session_id, raw = await opened(exit_)
    handshake(exit_, raw)
    await exit_.tick(after=10)
    assert (await ada.status(session_id))["last_handshake_at"] == rfc3339(exit_.clock.wall_ms - 10_000)


@on_exit()
async def test_an_idle_session_ends(exit_: ExitUnderTest) -> None:
    """More than the idle timeout without a new handshake ends a session; a handshake starts the wait again."""
    ada, session_id, raw = await opened(exit_)
    await exit_.tick(after=300)
    assert exit_.state_of(session_id) == ("live", None)
    handshake(exit_, raw)
    await exit_.tick()
    await exit_.tick(after=300)
    assert exit_.state_of(session_id) == ("live", None)
    await exit_.tick(after=1)
    assert exit_.state_of(session_id) == ("terminated", "idle")
    assert (await ada.status(session_id))["terminated_reason"] == "idle"
    assert not exit_.tunnel.peers
    assert exit_.parts.pool.in_use == 0


@on_exit()
async def test_traffic_is_no_handshake(exit_: ExitUnderTest) -> None:
    """Bytes alone, and a handshake time that stays the same, keep no session alive."""
    _, session_id, raw = await opened(exit_)
    handshake(exit_, raw)
    await exit_.tick()
    for _ in range(31):
        exit_.tunnel.add_traffic(raw, tx=148)
        await exit_.tick(after=10)
    assert exit_.state_of(session_id) == ("terminated", "idle")


@on_exit("[tiers.free]\nidle_timeout = 0\n")
async def test_an_idle_timeout_of_0_is_none(exit_: ExitUnderTest) -> None:
    """An idle timeout of 0 is none."""
    _, session_id, _ = await opened(exit_, Tier.FREE)
    await exit_.tick(after=20 * DAY)
    assert exit_.state_of(session_id) == ("live", None)


@pytest.mark.parametrize("hours", [5, -5])
@on_exit()
async def test_a_clock_step_changes_no_idleness(exit_: ExitUnderTest, hours: int) -> None:
    """A step of the wall clock ends nobody as idle, and keeps nobody from it."""
    _, session_id, raw = await opened(exit_)
    handshake(exit_, raw)
    await exit_.tick(after=10)
    exit_.clock.step(hours * HOUR)
    await exit_.tick(after=10)
    assert exit_.state_of(session_id) == ("live", None)
    handshake(exit_, raw)  # also one that the stepped clock puts before the last
    await exit_.tick(after=280)
    await exit_.tick(after=299)
    assert exit_.state_of(session_id) == ("live", None)
    await exit_.tick(after=2)
    assert exit_.state_of(session_id) == ("terminated", "idle")


@on_exit('[tiers.paid]\nmax_session = "1h"\nidle_timeout = 0\n')
async def test_a_session_ends_at_its_expiry(exit_: ExitUnderTest) -> None:
    """At `expires_at`, and not a second before, the session ends; what moved until then is billed."""
    ada, session_id, raw = await opened(exit_)
    await exit_.tick(after=HOUR - 1)
    assert exit_.state_of(session_id) == ("live", None)
    exit_.tunnel.add_traffic(raw, rx=5)
    await exit_.tick(after=1)
    status = await ada.status(session_id)
    assert (status["terminated_reason"], status["bytes_in"]) == ("expired", 5)
    assert status["terminated_at"] == status["expires_at"]
    assert not exit_.tunnel.peers


ADMIN_ENDINGS = {
    "disabled": ("UPDATE accounts SET disabled = 1", "admin"),
    "deleted": ("UPDATE accounts SET deleted_at = 1", "admin"),
    "terminated": ("UPDATE sessions SET state = 'closing', reason = 'admin'", "admin"),
    "drained": ("UPDATE sessions SET state = 'closing', reason = 'drained'", "drained"),
}


@pytest.mark.parametrize(("change", "reason"), ADMIN_ENDINGS.values(), ids=ADMIN_ENDINGS)
@on_exit()
async def test_ended_by_an_admin(exit_: ExitUnderTest, change: str, reason: str) -> None:
    """What an admin command wrote is acted on by the next tick, for its reason, and then acknowledged."""
    _, session_id, raw = await opened(exit_)
    exit_.tunnel.add_traffic(raw, rx=6)
    await exit_.admin(change)
    assert exit_.rows("SELECT requested - applied FROM node") == [(1,)]
    await exit_.tick()
    assert exit_.state_of(session_id) == ("terminated", reason)
    assert exit_.rows("SELECT bytes_in FROM sessions") == [(6,)]
    assert exit_.rows("SELECT requested - applied FROM node") == [(0,)]
    assert not exit_.tunnel.peers
    assert exit_.parts.pool.in_use == 0


@on_exit()
async def test_not_acknowledged_before_done(exit_: ExitUnderTest) -> None:
    """A request is acknowledged only when what it asks for has been done in the tunnel too."""
    _, session_id, _ = await opened(exit_)
    await exit_.admin("UPDATE sessions SET state = 'closing', reason = 'admin'")
    exit_.tunnel.fail_next(TunnelError("no"))
    await exit_.tick()
    assert exit_.rows("SELECT requested - applied FROM node") == [(1,)]
    assert exit_.state_of(session_id) == ("closing", "admin")
    await exit_.tick()
    assert exit_.rows("SELECT requested - applied FROM node") == [(0,)]
    assert exit_.state_of(session_id) == ("terminated", "admin")


@on_exit()
async def test_a_foreign_peer_is_removed(exit_: ExitUnderTest) -> None:
    """A peer of no session is removed; ours stay as they are."""
    _, _, raw = await opened(exit_)
    _, foreign = new_key()
    exit_.tunnel.interface.peers[foreign] = stranger(foreign)
    exit_.tunnel.applied.clear()
    await exit_.tick()
    assert set(exit_.tunnel.peers) == {raw}
    assert len(exit_.tunnel.applied) == 1


@on_exit('[meter]\ninterval = "10s"\n')
async def test_foreign_peer_again_and_again(exit_: ExitUnderTest) -> None:
    """Something to repair at every look does not keep the exit from the whole ticks that are due. After some repairs
    the next ones wait."""
    await opened(exit_)
    _, foreign = new_key()
    ticked, removed = exit_.parts.ticker.ticks, []
    for second in range(30):
        exit_.clock.advance(1)
        exit_.tunnel.interface.peers[foreign] = stranger(foreign)
        await exit_.parts.ticker.tick(whole=False)
        if foreign not in exit_.tunnel.peers:
            removed.append(second)
    assert removed[:5] == [0, 1, 2, 3, 4]
    assert exit_.parts.ticker.ticks == ticked + 3


@on_exit()
async def test_a_missing_peer_is_put_back_and_its_totals_go_on(exit_: ExitUnderTest) -> None:
    """A peer that somebody removed is put back and counts from zero; the session's totals go on."""
    ada, session_id, raw = await opened(exit_)
    exit_.tunnel.add_traffic(raw, rx=100)
    await exit_.tick()
    del exit_.tunnel.interface.peers[raw]
    await exit_.tick(after=10)
    assert exit_.tunnel.peers[raw].rx_bytes == 0
    exit_.tunnel.add_traffic(raw, rx=150)  # past the old baseline: only the store knows that it counts anew
    await exit_.tick(after=10)
    assert (await ada.status(session_id))["bytes_in"] == 250


@on_exit()
async def test_restart_after_a_restored_peer(exit_: ExitUnderTest) -> None:
    """That a peer counts anew is stored before it does: a new process knows it too."""
    ada, session_id, raw = await opened(exit_)
    exit_.tunnel.add_traffic(raw, rx=100)
    await exit_.tick()
    del exit_.tunnel.interface.peers[raw]
    await exit_.tick(after=10)
    exit_.tunnel.add_traffic(raw, rx=150)
    await exit_.restart()
    assert (await ada.status(session_id))["bytes_in"] == 250


@on_exit(tunnel=WaywardTunnel)
async def test_one_short_dump_proves_nothing(exit_: ExitUnderTest) -> None:
    """One dump that misses a peer proves nothing: the peer and its counters are left alone."""
    ada, session_id, raw = await opened(exit_)
    exit_.tunnel.add_traffic(raw, rx=100)
    await exit_.tick()
    exit_.tunnel.applied.clear()
    assert isinstance(exit_.tunnel, WaywardTunnel)
    exit_.tunnel.short_dumps = 1
    await exit_.tick(after=10)
    assert exit_.tunnel.applied == []
    assert exit_.tunnel.peers[raw].rx_bytes == 100
    await exit_.tick(after=10)
    assert (await ada.status(session_id))["bytes_in"] == 100


@on_exit(tunnel=WaywardTunnel)
async def test_peer_lost_after_a_short_dump(exit_: ExitUnderTest) -> None:
    """A peer that somebody removes just after a dump missed it is put back by the next look, which shows no change."""
    _, _, raw = await opened(exit_)
    await exit_.tick()
    assert isinstance(exit_.tunnel, WaywardTunnel)
    exit_.tunnel.short_dumps = 1
    await exit_.tick(after=1)
    del exit_.tunnel.interface.peers[raw]
    await exit_.tick(after=1)
    assert exit_.tunnel.peers.keys() == {raw}


@pytest.mark.parametrize("ended_by", ["DELETE", "a replacement"])
@on_exit(tunnel=WaywardTunnel)
async def test_ended_with_a_short_dump(exit_: ExitUnderTest, ended_by: str) -> None:
    """A session that ends while a dump misses its peer has its last bytes and its time: the dump is taken again."""
    ada = await exit_.client(tier=Tier.PAID)
    text, raw = new_key()
    session_id = (await ada.connect(client_public_key=text))["id"]
    await exit_.tick()
    exit_.clock.advance(7)
    exit_.tunnel.add_traffic(raw, rx=100, tx=10)
    assert isinstance(exit_.tunnel, WaywardTunnel)
    exit_.tunnel.short_dumps = 1
    if ended_by == "DELETE":
        assert (await ada.delete(session_id)).status_code == 200
    else:
        await ada.connect(client_public_key=text)
    status = await ada.status(session_id)
    assert (status["bytes_in"], status["bytes_out"], status["quota_seconds_used"]) == (100, 10, 7)


@on_exit()
async def test_restored_peer_is_not_idle(exit_: ExitUnderTest) -> None:
    """Idleness counts from when the peer was last installed."""
    _, session_id, raw = await opened(exit_)
    exit_.clock.advance(290)
    del exit_.tunnel.interface.peers[raw]
    await exit_.tick()
    await exit_.tick(after=300)
    assert exit_.state_of(session_id) == ("live", None)
    await exit_.tick(after=1)
    assert exit_.state_of(session_id) == ("terminated", "idle")


@on_exit()
async def test_a_new_interface_is_billed_in_full(exit_: ExitUnderTest) -> None:
    """A new interface counts from zero: totals never go down, and what it counts is billed in full."""
    ada, session_id, raw = await opened(exit_)
    exit_.tunnel.add_traffic(raw, rx=100, tx=50)
    await exit_.tick()
    exit_.tunnel.vanish()
    assert (await ada.status(session_id))["bytes_in"] == 100
    await exit_.tick()
    assert (await ada.status(session_id))["bytes_in"] == 100
    assert exit_.tunnel.interface.link is not None
    exit_.tunnel.add_traffic(raw, rx=200, tx=60)
    await exit_.tick()
    status = await ada.status(session_id)
    assert (status["bytes_in"], status["bytes_out"]) == (300, 110)


@on_exit()
async def test_a_failed_commit_is_billed_once_later(exit_: ExitUnderTest) -> None:
    """A tick that cannot store what it read bills it once, later; meanwhile the exit is not ready."""
    ada, session_id, raw = await opened(exit_)
    exit_.tunnel.add_traffic(raw, rx=100)
    async with exit_.locked():
        await exit_.tick(after=10)
        assert exit_.parts.node.health.fault == "store unavailable: database is locked"
        exit_.tunnel.add_traffic(raw, rx=20)
        await exit_.tick(after=10)
    assert (await ada.status(session_id))["bytes_in"] == 0
    for _ in range(3):
        await exit_.tick(after=10)
        assert (await ada.status(session_id))["bytes_in"] == 120
    assert exit_.parts.node.health.fault is None
    assert (exit_.parts.ticker.failed_ticks, exit_.parts.meter.bytes_in) == (2, 120)


@on_exit()
async def test_commit_made_all_the_same(exit_: ExitUnderTest) -> None:
    """A commit that seemed to fail may have been made: the store is read again before anything is billed."""
    ada, session_id, raw = await opened(exit_)
    exit_.tunnel.add_traffic(raw, rx=100)
    link = exit_.tunnel.interface.link
    assert link is not None
    async with exit_.locked():
        await exit_.tick(after=10)
    with closing(sqlite3.connect(exit_.path)) as db, db:
        db.execute("UPDATE peers SET bytes_in = 100, ifindex = ?, rx_bytes = 100, tx_bytes = 0", (link.ifindex,))
    exit_.tunnel.add_traffic(raw, rx=5)
    await exit_.tick(after=10)
    assert (await ada.status(session_id))["bytes_in"] == 105


@on_exit(tunnel=WaywardTunnel)
async def test_a_failed_dump_bills_nothing_and_is_caught_up(exit_: ExitUnderTest) -> None:
    """A tick without a dump ends and bills nothing; the next one catches up."""
    ada, session_id, raw = await opened(exit_)
    exit_.tunnel.add_traffic(raw, rx=100)
    assert isinstance(exit_.tunnel, WaywardTunnel)
    exit_.tunnel.failing_dumps = 1
    await exit_.tick(after=400)
    assert exit_.state_of(session_id) == ("live", None)
    handshake(exit_, raw)
    await exit_.tick(after=10)
    assert (await ada.status(session_id))["bytes_in"] == 100
