"""A wall clock that is set to another time: sessions and history go on until that time is known to be right."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from appliance.domain.clock import rfc3339
from appliance.domain.tiers import Tier
from appliance.server.retention import Retention
from appliance.store.known_time import believed_clock
from appliance.store.queries import node as node_row
from tests.support.api.exit_under_test import on_exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.api.exit_under_test import Client, ExitUnderTest

DAY = 86_400
YEAR = 365 * DAY
NEVER_IDLE = '[meter]\nretention = "90d"\n[tiers.paid]\nidle_timeout = 0\n[tiers.free]\nidle_timeout = 0\n'


async def settled(exit_: ExitUnderTest) -> tuple[Client, dict[str, str], dict[str, str]]:
    """An exit without a time service, with an account, its live session, and one that has ended."""
    ada = await exit_.client()
    ended, live = await ada.open(), await ada.open()
    await ada.delete(ended["id"])
    await exit_.tick(after=60)
    exit_.clock.kept = False
    return ada, live, ended


async def sweep(exit_: ExitUnderTest) -> None:
    """As the server does at its start and each hour."""
    clock = await believed_clock(exit_.store, exit_.clock)
    await Retention(exit_.store, exit_.parts.services.terms, exit_.settings.meter, clock).sweep(asyncio.Event())


async def restarted(exit_: ExitUnderTest) -> None:
    await exit_.restart()
    await exit_.tick(after=2)
    await sweep(exit_)


async def run_on(exit_: ExitUnderTest) -> None:
    """Past the hour in which the sweep comes by itself."""
    await exit_.tick(after=1)
    await exit_.tick(after=3700)
    await sweep(exit_)


async def away_meanwhile(exit_: ExitUnderTest) -> None:
    await exit_.restart()
    await run_on(exit_)


LATER = {"the server runs on": run_on, "it is restarted": restarted, "both": away_meanwhile}


@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
@pytest.mark.parametrize("step", [YEAR, 45 * DAY, -3 * DAY, -YEAR])
@on_exit(NEVER_IDLE)
async def test_a_step_ends_no_session_and_deletes_no_history(
    exit_: ExitUnderTest, step: int, later: Callable[[ExitUnderTest], Awaitable[None]]
) -> None:
    """A year ahead, days back: sessions go on, what has ended answers, what is new is dated as if there was no step."""
    ada, live, ended = await settled(exit_)
    dated = await exit_.token(ada.account, expires_at=exit_.clock.wall_ms + DAY * 1000)
    before = exit_.clock.now()
    exit_.clock.step(step)
    await later(exit_)
    assert exit_.state_of(live["id"]) == ("live", None)
    assert (await ada.status(ended["id"]))["terminated_reason"] == "closed"
    assert (await exit_.http.get("/readyz")).status_code == 200
    assert (await exit_.http.get("/v1/usage", headers={"Authorization": f"Bearer {dated}"})).status_code == 200
    opened = await ada.open()
    now_ms = before.wall_ms + exit_.clock.boot_ms - before.boot_ms
    assert (await ada.status(opened["id"]))["created_at"] == rfc3339(now_ms)
    assert opened["expires_at"] == rfc3339(now_ms + 30 * DAY * 1000)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("step", [YEAR, -3 * DAY])
@on_exit(NEVER_IDLE)
async def test_a_synchronised_clock_is_followed(exit_: ExitUnderTest, step: int, *, restart: bool) -> None:
    """Once a time service has said that it is right: then sessions end that have expired, and old history goes."""
    ada, live, ended = await settled(exit_)
    exit_.clock.step(step)
    await exit_.tick(after=1)
    exit_.clock.kept = True
    if restart:
        await exit_.restart()
    await exit_.tick(after=1)
    await sweep(exit_)
    assert exit_.state_of(live["id"]) == (("terminated", "expired") if step > 0 else ("live", None))
    assert (await ada.status_answer(ended["id"])).status_code == (404 if step > 0 else 200)
    assert (await ada.open())["expires_at"] == rfc3339(exit_.clock.wall_ms + 30 * DAY * 1000)


@on_exit(NEVER_IDLE)
async def test_a_clock_that_is_put_back_leaves_no_trace(exit_: ExitUnderTest) -> None:
    """Back where it was, it is believed again; nothing has ended in between."""
    ada, live, _ = await settled(exit_)
    exit_.clock.step(YEAR)
    await exit_.tick(after=5)
    exit_.clock.step(-YEAR)
    await exit_.tick(after=5)
    assert exit_.parts.ticker.clock_ahead_ms == 0
    assert exit_.state_of(live["id"]) == ("live", None)
    assert (await ada.open())["expires_at"] == rfc3339(exit_.clock.wall_ms + 30 * DAY * 1000)


async def accept(exit_: ExitUnderTest) -> None:
    """As `node resume --accept-clock` does, from another process."""
    async with exit_.store.write() as db:
        await node_row.accept_clock(db, exit_.clock.now())
        await node_row.request(db)


@pytest.mark.parametrize("stopped", [False, True])
@on_exit(NEVER_IDLE)
async def test_an_accepted_step_is_followed_and_the_next_is_not(exit_: ExitUnderTest, *, stopped: bool) -> None:
    """With the server running and stopped; the acceptance is used up by that."""
    ada, live, _ = await settled(exit_)
    exit_.clock.step(YEAR)
    await exit_.tick(after=1)
    await accept(exit_)
    if stopped:
        await exit_.restart()
    else:
        await exit_.tick(after=1)
    assert exit_.state_of(live["id"]) == ("terminated", "expired")
    assert exit_.rows("SELECT right_wall_ms, right_boot_id, requested - applied FROM node") == [(None, None, 0)]
    later = await ada.open()
    for _ in range(2):
        exit_.clock.step(YEAR)
        await restarted(exit_)
        assert exit_.state_of(later["id"]) == ("live", None)
        exit_.clock.step(-YEAR)
        await restarted(exit_)
    assert exit_.parts.ticker.clock_ahead_ms == 0


@on_exit(NEVER_IDLE)
async def test_a_reboot_into_another_time(exit_: ExitUnderTest) -> None:
    """In 1970, or a year on: the heartbeat is the least that it can be. Off for three days is nothing odd."""
    _, live, _ = await settled(exit_)
    heartbeat = exit_.clock.wall_ms
    for wall_ms in (1_000_000, heartbeat + YEAR * 1000):
        exit_.clock.reboot()
        exit_.clock.wall_ms = wall_ms
        await restarted(exit_)
        assert exit_.parts.ticker.clock_ahead_ms != 0
        assert exit_.state_of(live["id"]) == ("live", None)
    exit_.clock.reboot()
    exit_.clock.wall_ms = heartbeat + 3 * DAY * 1000
    await restarted(exit_)
    assert exit_.parts.ticker.clock_ahead_ms == 0


@on_exit(NEVER_IDLE)
async def test_a_handshake_by_a_clock_that_stepped(exit_: ExitUnderTest) -> None:
    """`last_handshake_at` is when it was by the time that is believed: never in the future, never days ago."""
    ada, live, _ = await settled(exit_)
    for step in (YEAR, -2 * YEAR):
        exit_.clock.step(step)
        told_ns = (exit_.clock.wall_ms + 500) * 10**6
        exit_.tunnel.add_traffic(exit_.key_of(live["id"]), rx=148, tx=92, handshake_ns=told_ns)
        await exit_.tick(after=1)
        believed_ms = exit_.clock.wall_ms - exit_.parts.ticker.clock_ahead_ms
        assert (await ada.status(live["id"]))["last_handshake_at"] == rfc3339(believed_ms)


@on_exit(NEVER_IDLE)
async def test_no_handshake_is_in_the_future_of_a_clock_that_was_put_right(exit_: ExitUnderTest) -> None:
    """One from when the clock was ahead is shown as now at most."""
    ada, live, _ = await settled(exit_)
    exit_.tunnel.add_traffic(exit_.key_of(live["id"]), rx=148, handshake_ns=exit_.clock.wall_ms * 10**6)
    await exit_.tick(after=1)
    exit_.clock.kept = True
    exit_.clock.step(-2 * DAY)
    await exit_.tick(after=1)
    assert (await ada.status(live["id"]))["last_handshake_at"] == rfc3339(exit_.clock.wall_ms)


@on_exit(NEVER_IDLE)
async def test_windows_and_days_go_by_the_time_believed(exit_: ExitUnderTest) -> None:
    """What is used while the clock is ahead counts into the window that is open, and into the day that is believed."""
    ada, live, _ = await settled(exit_)
    bob = await exit_.client("bob", Tier.FREE)
    his = await bob.open()
    exit_.tunnel.add_traffic(exit_.key_of(his["id"]), rx=1000)
    await exit_.tick(after=1)
    resets_at = (await bob.get("/v1/usage")).json()["bytes_window_resets_at"]
    exit_.clock.step(45 * DAY)
    for session in (live, his):
        exit_.tunnel.add_traffic(exit_.key_of(session["id"]), rx=500)
    await exit_.tick(after=1)
    usage = (await bob.get("/v1/usage")).json()
    assert (usage["bytes_used"], usage["bytes_window_resets_at"]) == (1500, resets_at)
    believed_ms = exit_.clock.wall_ms - exit_.parts.ticker.clock_ahead_ms
    today = datetime.fromtimestamp(believed_ms / 1000, UTC).strftime("%Y-%m-%d")
    assert exit_.rows("SELECT DISTINCT day FROM usage_days") == [(today,)]
    assert (await ada.status(live["id"]))["bytes_in"] == 500


@on_exit(NEVER_IDLE)
async def test_a_doubt_is_said_once(exit_: ExitUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    """One line when it begins, with what to do, and one when it ends."""
    await settled(exit_)
    caplog.clear()
    exit_.clock.step(YEAR)
    for _ in range(3):
        await exit_.tick(after=11)
    exit_.clock.kept = True
    for _ in range(3):
        await exit_.tick(after=11)
    lines = [record.getMessage() for record in caplog.records if "wall clock" in record.getMessage()]
    assert len(lines) == 2
    assert lines[0].startswith("the wall clock is 365 d ahead of what the boot clock")
    assert "node resume --accept-clock" in lines[0]
    assert lines[1].startswith("the wall clock is believed again")
