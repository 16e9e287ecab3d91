"""Status of a live session comes from memory: what the store would answer, and nothing is asked of the store for it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from appliance.domain.errors import TunnelError
from appliance.domain.tiers import Tier
from appliance.store import database
from tests.support.api.answers import refused
from tests.support.api.exit_under_test import Client, ExitUnderTest, new_key, on_exit, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECONDS = 60.0
PRICES = '[pricing]\ncurrency = "eur"\nmillicents_per_minute = 700\nmillicents_per_gib = 900\n'


@asynccontextmanager
async def statements(exit_: ExitUnderTest) -> AsyncIterator[list[str]]:
    """What both of the store's threads are asked while it lasts."""
    seen: list[str] = []
    threads = (exit_.store._reader, exit_.store._writer)
    for thread in threads:
        await thread.set_trace_callback(seen.append)
    try:
        yield seen
    finally:
        for thread in threads:
            await thread.set_trace_callback(None)


@asynccontextmanager
async def held(exit_: ExitUnderTest) -> AsyncIterator[None]:
    """Both of the store's threads are at work on something that does not end."""
    gate = threading.Event()
    busy = [asyncio.ensure_future(each._execute(gate.wait)) for each in (exit_.store._reader, exit_.store._writer)]
    try:
        yield
    finally:
        gate.set()
        await asyncio.gather(*busy)


async def both_ways(client: Client, session_id: str) -> dict[str, Any]:
    """Status from memory where it can be, which must be what the store's rows say."""
    live = client.exit_.parts.live
    assert live.in_sync
    shown = await client.status(session_id)
    live.mark_stale()
    try:
        stored = await client.status(session_id)
    finally:
        live._stale = False  # nothing was changed meanwhile
    assert shown == stored
    return shown


@pytest.mark.parametrize("tier", [Tier.PAID, Tier.FREE])
@on_exit(PRICES)
async def test_memory_is_as_the_store(exit_: ExitUnderTest, tier: Tier) -> None:
    """From its first answer to its last a session shows the figures that were last committed, from whichever side."""
    ada = await exit_.client(tier=tier)
    text, raw = new_key()
    first = (await ada.open(client_public_key=text))["id"]
    await exit_.tick()
    assert "last_handshake_at" not in await both_ways(ada, first)
    await exit_.shake(raw)
    assert "last_handshake_at" in await both_ways(ada, first)  # the first one is committed at once
    exit_.tunnel.add_traffic(raw, rx=100, tx=50)
    exit_.clock.advance(1)
    await both_ways(ada, first)  # moved, not read
    await exit_.parts.ticker.tick(whole=False)
    assert (await both_ways(ada, first))["bytes_in"] == 0  # read, not committed
    await exit_.tick(after=10)
    shown = await both_ways(ada, first)
    assert (shown["bytes_in"], shown["seconds"]) == (100, 11)
    exit_.clock.advance(20)
    assert (await both_ways(ada, first))["seconds"] == 31  # time alone
    second = (await ada.open(client_public_key=text))["id"]
    assert (await both_ways(ada, first))["terminated_reason"] == "replaced"
    await both_ways(ada, second)
    exit_.tunnel.add_traffic(raw, rx=7, tx=3)
    await exit_.tick(after=10)
    assert (await both_ways(ada, second))["bytes_in"] == 7
    exit_.tunnel.fail_next(TunnelError("no"))
    refused(await ada.delete(second), 503)
    assert exit_.state_of(second)[0] == "closing"
    assert "terminated_at" not in await both_ways(ada, second)
    await exit_.tick(after=1)
    assert (await both_ways(ada, second))["terminated_reason"] == "closed"


@on_exit(PRICES)
async def test_over_many_accounts_and_a_restart(exit_: ExitUnderTest) -> None:
    """The same for several sessions of several accounts, after a restart, and where admin commands change something."""
    clients = [await exit_.client(name, tier) for name, tier in (("ada", Tier.PAID), ("eve", Tier.FREE))]
    opened = [(each, (await each.open())["id"]) for each in clients for _ in range(3)]

    async def move(amount: int) -> None:
        for n, (_, session_id) in enumerate(opened):
            key = exit_.key_of(session_id)
            if key in exit_.tunnel.peers:
                exit_.tunnel.add_traffic(key, rx=amount + n, tx=n, handshake_ns=(exit_.clock.wall_ms + n) * 10**6)
        await exit_.tick(after=10)
        for client, session_id in opened:
            await both_ways(client, session_id)

    await move(100)
    await exit_.restart()
    await move(200)
    await exit_.admin("UPDATE accounts SET tier = 'paid' WHERE name = 'eve'")
    await move(300)
    await exit_.admin("UPDATE sessions SET state = 'closing', reason = 'admin' WHERE id = ?", opened[0][1])
    await both_ways(*opened[0])  # decided by another process, and not yet taken over
    await move(400)
    assert (await both_ways(*opened[0]))["terminated_reason"] == "admin"


@on_exit()
async def test_the_status_of_a_live_session_needs_no_statement(
    exit_: ExitUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is known and a session that is live: no statement goes to either thread, no connection is opened."""

    async def unwanted(*_: object) -> NoReturn:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(database, "_connect", unwanted)
    ada, eve = await exit_.client(), await exit_.client("eve")
    opened = await ada.open()
    refused(await eve.status_answer(opened["id"]), 404)
    async with statements(exit_) as seen:
        await ada.status(opened["id"])
        refused(await eve.status_answer(opened["id"]), 404, "session not found")
        exit_.clock.advance(1)
        await ada.status(opened["id"])
        assert seen == []
        await ada.delete(opened["id"])
        assert any(statement.startswith("COMMIT") for statement in seen)  # or else it would see nothing


@on_exit()
async def test_the_stores_threads_are_held_up(exit_: ExitUnderTest) -> None:
    """Whatever the store's threads are at, status of a live session is answered before they are done."""
    ada = await exit_.client()
    opened = await ada.open()
    before = await ada.status(opened["id"])
    async with held(exit_), asyncio.timeout(SECONDS):
        assert await ada.status(opened["id"]) == before
        waiting = asyncio.ensure_future(ada.get("/v1/sessions"))
        assert await ada.status(opened["id"]) == before
        assert not waiting.done()
    assert (await waiting).json() == {"sessions": [before]}


@on_exit()
async def test_the_store_is_locked(exit_: ExitUnderTest) -> None:
    """While another process holds the lock and a request waits for it, status of a live session is answered."""
    ada = await exit_.client()
    opened = await ada.open()
    before = await ada.status(opened["id"])
    async with statements(exit_) as seen:
        with exit_.locked():
            asking = asyncio.ensure_future(ada.post())
            await until(lambda: "BEGIN IMMEDIATE" in seen, "the request waits for the lock")
            assert await ada.status(opened["id"]) == before
            refused(await asking, 503, "store unavailable")
            assert await ada.status(opened["id"]) == before


@on_exit()
async def test_while_memory_is_stale(exit_: ExitUnderTest) -> None:
    """Memory that may differ from the store is not shown: the store's rows are."""
    ada = await exit_.client()
    opened = await ada.open()
    exit_.parts.live.mark_stale()
    async with statements(exit_) as seen:
        await ada.status(opened["id"])
    assert any("FROM sessions" in statement for statement in seen)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tokens SET revoked_at = 1",
        "UPDATE tokens SET expires_at = 1",
        "UPDATE accounts SET disabled = 1",
        "UPDATE accounts SET deleted_at = 1",
        "DELETE FROM tokens",
    ],
)
@on_exit()
async def test_a_remembered_token_is_forgotten_when_it_changes(exit_: ExitUnderTest, change: str) -> None:
    """What an admin command did to a token that is known holds when the server has taken it over."""
    ada = await exit_.client()
    opened = await ada.open()
    await ada.status(opened["id"])
    await exit_.admin(change)
    await exit_.tick()
    assert exit_.rows("SELECT requested - applied FROM node") == [(0,)]
    refused(await ada.status_answer(opened["id"]), 401, "invalid token")
    refused(await ada.get("/v1/usage"), 401, "invalid token")
    refused(await ada.post(), 401, "invalid token")


@on_exit()
async def test_a_remembered_token_expires_at_its_time(exit_: ExitUnderTest) -> None:
    """A token that is known ends at its time, with nobody telling."""
    ada = await exit_.client()
    opened = await ada.open()
    ada.token = await exit_.token(ada.account, expires_at=exit_.clock.wall_ms + 2000)
    exit_.clock.advance(1.999)
    await ada.status(opened["id"])
    exit_.clock.advance(0.001)
    refused(await ada.status_answer(opened["id"]), 401, "invalid token")


@on_exit()
async def test_a_remembered_token_shows_the_new_tier(exit_: ExitUnderTest) -> None:
    """Whose token is known shows the limits of the account's new tier once the server has taken it over."""
    ada = await exit_.client()
    opened = await ada.open()
    assert (await ada.get("/v1/usage")).json()["tier"] == "paid"
    await exit_.admin("UPDATE accounts SET tier = 'free'")
    await exit_.tick()
    assert (await ada.get("/v1/usage")).json()["tier"] == "free"
    assert (await ada.status(opened["id"]))["quota_bytes_limit"] > 0
