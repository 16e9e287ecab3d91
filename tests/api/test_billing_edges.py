"""Where metering, ending and repairing meet: nobody escapes a limit, nothing is billed twice or for an absence."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import TunnelError
from appliance.domain.tiers import Tier
from tests.support.api.answers import refused
from tests.support.api.exit_under_test import Client, ExitUnderTest, new_key, on_exit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SMALL = '[tiers.free]\nbytes_limit = 1000\nbytes_window = "1h"\nseconds_limit = "60s"\nseconds_window = "2h"\n'
DAY_MS = 86_400_000


@asynccontextmanager
async def flood(client: Client, key: str) -> AsyncIterator[None]:
    """Requests about one key, without a pause."""

    async def ask() -> None:
        while not enough.is_set():
            await client.post(client_public_key=key)

    enough = asyncio.Event()
    tasks = [asyncio.create_task(ask()) for _ in range(4)]
    try:
        yield
    finally:
        enough.set()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("stranger", [False, True], ids=["its own", "a stranger's"])
@on_exit(SMALL)
async def test_a_flood_saves_nobody(exit_: ExitUnderTest, *, stranger: bool) -> None:
    """A session that has to end does so within two ticks, however many requests there are about its key."""
    ada = await exit_.client(tier=Tier.FREE)
    text, raw = new_key()
    await ada.open(client_public_key=text)
    async with flood(await exit_.client("eve") if stranger else ada, text):
        await asyncio.sleep(0)
        exit_.tunnel.add_traffic(raw, rx=5000)
        await exit_.tick(after=1)
        await exit_.tick(after=1)
        sessions = "SELECT state, reason FROM sessions WHERE account_id = ? ORDER BY number"
        *earlier, last = exit_.rows(sessions, ada.account.id)
    # Its own requests may have replaced it before they were refused.
    assert set(earlier) <= {("terminated", "replaced")}
    assert last == ("terminated", "quota_exceeded")


@on_exit(SMALL)
async def test_a_cut_commits_at_once(exit_: ExitUnderTest) -> None:
    """A cut commits at once: the last bytes are billed, the window is charged, and the next POST is refused."""
    ada = await exit_.client(tier=Tier.FREE)
    opened = await ada.open()
    exit_.tunnel.add_traffic(exit_.key_of(opened["id"]), rx=700, tx=345)
    exit_.clock.advance(1)
    await exit_.parts.ticker.tick(whole=False)
    final = await ada.status(opened["id"])
    assert (final["terminated_reason"], final["bytes_in"], final["bytes_out"]) == ("quota_exceeded", 700, 345)
    answer = await ada.post()
    assert (answer.status_code, answer.json()["bytes_used"]) == (402, 1045)


@on_exit()
async def test_a_repair_commits_what_was_read_first(exit_: ExitUnderTest) -> None:
    """What was read is committed before a peer's baseline is forgotten."""
    ada = await exit_.client()
    one, other = await ada.open(), await ada.open()
    gone = exit_.key_of(one["id"])
    exit_.tunnel.add_traffic(gone, rx=7)
    exit_.clock.advance(1)
    await exit_.parts.ticker.tick(whole=False)
    exit_.tunnel.add_traffic(exit_.key_of(other["id"]), rx=9)
    del exit_.tunnel.interface.peers[gone]
    exit_.clock.advance(1)
    await exit_.parts.ticker.tick(whole=False)
    assert gone in exit_.tunnel.peers
    assert [(await ada.status(session["id"]))["bytes_in"] for session in (one, other)][1] == 9


@on_exit()
async def test_cancelled_in_a_commit(exit_: ExitUnderTest) -> None:
    """A request that is cancelled while its transaction is committed, as at a stop, is not billed a second time."""
    ada = await exit_.client()
    opened = await ada.open()
    exit_.tunnel.add_traffic(exit_.key_of(opened["id"]), rx=400, tx=600)
    writer = exit_.store._writer
    execute = writer.execute

    async def cancelled_at_commit(sql: str, *parameters: object) -> object:
        if sql == "COMMIT":
            asyncio.get_running_loop().call_soon(closing.cancel)
        return await execute(sql, *parameters)  # type: ignore[arg-type]

    writer.execute = cancelled_at_commit  # type: ignore[method-assign,assignment]
    closing = asyncio.create_task(exit_.parts.services.sessions.close(ada.account, opened["id"]))
    with suppress(asyncio.CancelledError):
        await closing
    writer.execute = execute  # type: ignore[method-assign]
    await exit_.tick()
    assert exit_.rows("SELECT bytes_in, bytes_out FROM sessions") == [(400, 600)]
    assert exit_.rows("SELECT bytes_used FROM accounts") == [(1000,)]


@on_exit()
async def test_no_time_without_a_peer(exit_: ExitUnderTest) -> None:
    """While a peer that is missing cannot be put back, no time is billed."""
    ada = await exit_.client()
    opened = await ada.connect()
    await exit_.tick(after=10)
    apply = exit_.tunnel.apply

    async def refuse(_: object) -> None:
        raise TunnelError("no memory")

    exit_.tunnel.interface.peers.clear()
    exit_.tunnel.apply = refuse  # type: ignore[method-assign,assignment]
    for _ in range(60):
        await exit_.tick(after=10)
    exit_.tunnel.apply = apply  # type: ignore[method-assign]
    await exit_.tick(after=10)
    assert exit_.state_of(opened["id"])[0] == "live"
    assert exit_.rows("SELECT counted_ms FROM peers")[0][0] <= 20_000


@on_exit()
async def test_no_time_while_away_without_peers(exit_: ExitUnderTest) -> None:
    """The process was down for an hour, and the interface stands without its peers: the hour is nobody's."""
    ada = await exit_.client()
    await ada.connect()
    await exit_.tick(after=10)
    exit_.tunnel.interface.peers.clear()
    exit_.clock.advance(3600)
    await exit_.restart()
    assert exit_.rows("SELECT counted_ms FROM peers") == [(10_000,)]


@on_exit()
async def test_time_up_to_the_heartbeat(exit_: ExitUnderTest) -> None:
    """After a reboot a quiet session's time counts up to when the server was last known to be up."""
    ada = await exit_.client()
    await ada.connect()
    for _ in range(5):
        await exit_.tick(after=10)
    exit_.clock.reboot()
    exit_.tunnel.vanish()
    await exit_.restart()
    assert exit_.rows("SELECT counted_ms FROM peers") == [(50_000,)]


@on_exit(SMALL)
async def test_cut_though_a_repair_fails(exit_: ExitUnderTest) -> None:
    """Something about the exit that cannot be put right keeps nobody live who has to end."""
    ada = await exit_.client(tier=Tier.FREE)
    opened = await ada.open()
    raw = exit_.key_of(opened["id"])

    async def refuse(_: object) -> None:
        raise TunnelError("address in use")

    exit_.tunnel.interface.listen_port = 1
    exit_.tunnel.configure = refuse  # type: ignore[method-assign,assignment]
    exit_.tunnel.add_traffic(raw, rx=5000)
    await exit_.tick(after=1)
    assert exit_.state_of(opened["id"]) == ("terminated", "quota_exceeded")
    assert raw not in exit_.tunnel.peers
    refused(await exit_.http.get("/readyz"), 503, "address in use")


@on_exit(SMALL)
async def test_at_the_second_that_is_said(exit_: ExitUnderTest) -> None:
    """Whoever comes back at `resets_at` is let in, also where the window ends in the middle of a second."""
    ada = await exit_.client(tier=Tier.FREE)
    exit_.clock.wall_ms = exit_.clock.wall_ms // 1000 * 1000 + 700
    await ada.connect()
    await exit_.tick(after=60)
    answer = await ada.post()
    assert answer.status_code == 402
    resets_at = int(datetime.fromisoformat(answer.json()["resets_at"]).timestamp() * 1000)
    await exit_.tick(after=(resets_at - exit_.clock.wall_ms) / 1000)
    await ada.open()


@on_exit(SMALL)
async def test_a_clock_that_was_days_ahead(exit_: ExitUnderTest) -> None:
    """A window that was opened while the clock was far ahead keeps nobody out once it is right."""
    ada = await exit_.client(tier=Tier.FREE)
    exit_.clock.wall_ms += 3 * DAY_MS
    await ada.connect()
    await exit_.tick(after=60)
    assert (await ada.post()).status_code == 402
    exit_.clock.wall_ms -= 3 * DAY_MS
    await ada.open()


@on_exit('[tiers.free]\nbytes_limit = 1000000\nbytes_window = "1h"\nidle_timeout = 0\n')
async def test_bytes_fall_where_they_moved(exit_: ExitUnderTest) -> None:
    """What a quiet session moves in the second after a reset belongs into the new window."""
    ada = await exit_.client(tier=Tier.FREE)
    opened = await ada.open()
    raw = exit_.key_of(opened["id"])
    exit_.tunnel.add_traffic(raw, rx=1)
    await exit_.tick()
    end = exit_.rows("SELECT bytes_opened_at FROM accounts")[0][0] + 3_600_000
    exit_.clock.advance((end - exit_.clock.wall_ms) / 1000 - 50)
    for _ in range(6):
        await exit_.tick()
        exit_.clock.advance(10 if exit_.clock.wall_ms < end else 1)
    exit_.tunnel.add_traffic(raw, rx=900_000)
    await exit_.tick()
    assert (await ada.get("/v1/usage")).json()["bytes_used"] == 900_000
