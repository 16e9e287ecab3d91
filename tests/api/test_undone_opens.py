"""Openings whose clients were told 503 while their batch was at the tunnel: undone, whatever comes meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from appliance.domain.errors import TunnelError
from appliance.domain.tiers import Tier
from appliance.network.wireguard.tunnel import RemovePeer
from tests.support.api.exit_under_test import IMPATIENT, Client, ExitUnderTest, new_key, on_exit, until
from tests.support.fake_tunnel import FakeInterface, FakeTunnel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    import httpx

    from appliance.network.wireguard.tunnel import Dump, PeerChange


class Scripted(FakeTunnel):
    """`before_apply` is called with each message; it may raise. While `dumps` is cleared, what reads counters waits."""

    def __init__(self, interface: FakeInterface | None = None) -> None:
        super().__init__(interface)
        self.dumps = asyncio.Event()
        self.dumps.set()
        self.dumping = False
        self.before_apply: Callable[[Sequence[PeerChange]], None] = lambda _: None

    async def apply(self, changes: Sequence[PeerChange]) -> None:
        self.before_apply(changes)
        await super().apply(changes)

    async def dump(self) -> Dump:
        self.dumping = True
        await self.dumps.wait()
        self.dumping = False
        return await super().dump()


async def ask(client: Client, **fields: object) -> httpx.Response:
    return await client.exit_.http.post("/v1/sessions", json={"region": "fsn", **fields}, headers=client.headers)


async def end(client: Client, session_id: str) -> httpx.Response:
    return await client.exit_.http.delete(f"/v1/sessions/{session_id}", headers=client.headers)


@asynccontextmanager
async def given_up(client: Client, **fields: object) -> AsyncIterator[None]:
    """A POST whose client is told 503 while the batch is at the tunnel, which answers after the block."""
    exit_ = client.exit_
    exit_.tunnel.gate.clear()
    asking = asyncio.create_task(ask(client, **fields))
    await until(lambda: exit_.tunnel.waiting, "its batch is at the tunnel")
    assert (await asking).status_code == 503
    yield
    exit_.tunnel.gate.set()


@asynccontextmanager
async def gone(client: Client, **fields: object) -> AsyncIterator[None]:
    """A POST whose client goes while the counters are read, after which its session is stored; what the block asks
    waits behind it."""
    tunnel = client.exit_.tunnel
    assert isinstance(tunnel, Scripted)
    tunnel.dumps.clear()
    asking = asyncio.create_task(ask(client, **fields))
    await until(lambda: tunnel.dumping, "its batch is at the tunnel")
    asking.cancel()
    await asyncio.wait({asking})
    yield
    tunnel.dumps.set()


async def settle(exit_: ExitUnderTest) -> None:
    await exit_.settled()
    for _ in range(3):
        await exit_.tick(after=1)


@on_exit("[tiers.anonymous]\nmax_live_sessions = 1\n", environ=IMPATIENT)
async def test_asked_again_before_it_is_undone(exit_: ExitUnderTest) -> None:
    """The place of the first is free again for the second, though nothing has come in between."""
    ada = await exit_.client(tier=Tier.ANONYMOUS)
    async with given_up(ada):
        again = asyncio.create_task(ask(ada))
        await until(lambda: exit_.parts.queue._waiting, "it waits for the next batch")
    assert (await again).status_code == 201
    await settle(exit_)
    assert (exit_.parts.pool.in_use, len(exit_.tunnel.peers)) == (1, 1)


@pytest.mark.parametrize("undone", [given_up, gone], ids=["not stored", "stored"])
@on_exit(tunnel=Scripted, environ=IMPATIENT)
async def test_the_predecessor_is_ended_meanwhile(
    exit_: ExitUnderTest, undone: Callable[..., AbstractAsyncContextManager[None]]
) -> None:
    """DELETE of a session whose replacement is to be undone, stored or not: answered with 200, its peer is gone."""
    ada, (text, raw) = await exit_.client(), new_key()
    old = await ada.open(client_public_key=text)
    async with undone(ada, client_public_key=text):
        ending = asyncio.create_task(end(ada, old["id"]))
        await until(lambda: exit_.parts.queue._waiting, "it waits for the next batch")
    ended = await ending
    assert (ended.status_code, raw in exit_.tunnel.peers) == (200, False)
    await settle(exit_)
    assert exit_.rows("SELECT state, reason FROM sessions") == [("terminated", "closed")]


@on_exit(environ=IMPATIENT)
async def test_what_moves_meanwhile_is_the_predecessors(exit_: ExitUnderTest) -> None:
    """No line and no day is left of a session that was undone; the lines of the others add up."""
    ada, (text, raw) = await exit_.client(), new_key()
    old, other = await ada.open(client_public_key=text), await ada.open()
    exit_.tunnel.add_traffic(raw, rx=1000, handshake_ns=5)
    await exit_.tick(after=1)
    async with given_up(ada, client_public_key=text):
        ending = asyncio.create_task(end(ada, other["id"]))
        await until(lambda: exit_.parts.queue._waiting, "it waits for the next batch")
        exit_.tunnel.add_traffic(raw, rx=500)
        exit_.clock.advance(1)
    assert (await ending).status_code == 200
    await settle(exit_)
    live = "SELECT s.id, p.bytes_in FROM sessions s JOIN peers p USING (address_offset) WHERE s.state = 'live'"
    assert exit_.rows(live) == [(old["id"], 1500)]
    for table in ("invoice_lines", "usage_days"):
        found = exit_.rows(f"SELECT session_id, sum(bytes_in) FROM {table} GROUP BY 1 ORDER BY 2 DESC")  # noqa: S608
        assert found == [(old["id"], 1500), (other["id"], 0)]


@on_exit(tunnel=Scripted)
async def test_asked_again_behind_a_stored_one(exit_: ExitUnderTest) -> None:
    """A client that goes and asks again with its key, which has a session: the new one replaces that."""
    ada, (text, _) = await exit_.client(), new_key()
    old = await ada.open(client_public_key=text)
    async with gone(ada, client_public_key=text):
        again = asyncio.create_task(ask(ada, client_public_key=text))
        await until(lambda: exit_.parts.queue._waiting, "it waits for the next batch")
    new = await again
    assert new.status_code == 201
    await settle(exit_)
    states = [(old["id"], "terminated", "replaced"), (new.json()["id"], "live", None)]
    assert exit_.rows("SELECT id, state, reason FROM sessions ORDER BY number") == states


@on_exit(tunnel=Scripted)
async def test_used_until_it_is_undone(exit_: ExitUnderTest) -> None:
    """A stored replacement that the device keeps from being undone: what its client uses meanwhile is counted, and is
    its predecessor's afterwards, on the invoice as well."""
    ada, (text, raw) = await exit_.client(), new_key()
    old = await ada.connect(client_public_key=text)
    exit_.tunnel.add_traffic(raw, rx=1000)
    await exit_.tick(after=10)
    async with gone(ada, client_public_key=text):
        exit_.tunnel.before_apply = refuse  # type: ignore[attr-defined]  # Scripted
    for _ in range(6):
        exit_.tunnel.add_traffic(raw, rx=10**9, handshake_ns=exit_.clock.wall_ms * 10**6)
        await exit_.tick(after=10)
    exit_.tunnel.before_apply = lambda _: None  # type: ignore[attr-defined]
    await settle(exit_)
    exit_.tunnel.add_traffic(raw, rx=24)
    await exit_.tick(after=7)
    figures = (6 * 10**9 + 1024, 80_000)
    assert exit_.rows("SELECT id, state FROM sessions") == [(old["id"], "live")]
    assert exit_.rows("SELECT bytes_in, counted_ms FROM peers") == [figures]
    assert exit_.rows("SELECT sum(bytes_in), sum(counted_ms) FROM usage_days") == [figures]
    assert exit_.rows("SELECT session_id, bytes_in, seconds FROM invoice_lines") == [(old["id"], figures[0], 80)]
    used = await exit_.parts.services.quotas.of(ada.account)
    assert (used.bytes_used, used.seconds_used) == (figures[0], 80)


@pytest.mark.parametrize("replaces", [False, True])
@on_exit(tunnel=Scripted)
async def test_closed_by_an_admin_before_it_is_undone(exit_: ExitUnderTest, *, replaces: bool) -> None:
    """A session that was stored, of which nobody was told, cannot be undone at once, and an admin closes it meanwhile:
    nothing is left of it, and what it replaced is closed in its place."""
    ada, (text, _) = await exit_.client(), new_key()
    before = [(await ada.open(client_public_key=text))["id"]] if replaces else []
    tunnel = exit_.tunnel
    assert isinstance(tunnel, Scripted)
    async with exit_.parts.peers.exit_lock:
        asking = asyncio.create_task(ask(ada, client_public_key=text))
        await until(lambda: exit_.parts.queue._waiting, "it waits for its batch")
    (request,) = exit_.parts.queue._batch or list(exit_.parts.queue._waiting)
    # Answered, and its client gone in the same moment.
    request.answer.add_done_callback(lambda _: asking.cancel())
    await asyncio.wait({asking})
    tunnel.before_apply = refuse
    await exit_.parts.queue.settled()
    await exit_.admin("UPDATE sessions SET state = 'closing', reason = 'admin' WHERE state = 'live'")
    await exit_.tick(after=1)
    tunnel.before_apply = lambda _: None
    await settle(exit_)
    assert exit_.rows("SELECT id, state, reason FROM sessions") == [(i, "terminated", "admin") for i in before]
    assert (exit_.parts.pool.in_use, exit_.tunnel.peers, len(exit_.parts.live)) == (0, {}, 0)


def refuse(_: Sequence[PeerChange]) -> None:
    raise TunnelError("not today")


@on_exit(tunnel=Scripted)
async def test_its_client_goes_while_another_ends(exit_: ExitUnderTest) -> None:
    """A client that goes between its answer and hearing of it, while the batch removes another's peer."""
    ada, (text, raw) = await exit_.client(), new_key()
    other = await ada.open()
    tunnel = exit_.tunnel
    assert isinstance(tunnel, Scripted)

    def cancel(changes: Sequence[PeerChange]) -> None:
        if any(isinstance(change, RemovePeer) for change in changes):
            asking.cancel()

    async with exit_.parts.peers.exit_lock:
        asking = asyncio.create_task(ask(ada, client_public_key=text))
        ending = asyncio.create_task(end(ada, other["id"]))
        await until(lambda: len(exit_.parts.queue._waiting) == 2, "both wait for their batch")
        tunnel.before_apply = cancel
    assert (await ending).status_code == 200
    await asyncio.wait({asking})
    await settle(exit_)
    live = exit_.rows("SELECT public_key FROM sessions WHERE state = 'live'")
    assert live == [] if asking.cancelled() else live == [(raw,)]
    assert set(tunnel.peers) == {row[0] for row in live}
    assert exit_.parts.pool.in_use == len(live)


@pytest.mark.parametrize("replaces", [False, True])
@on_exit(tunnel=Scripted, environ=IMPATIENT)
async def test_given_up_while_the_store_is_locked(exit_: ExitUnderTest, *, replaces: bool) -> None:
    """A client that is told 503 while its batch waits to write: nothing is stored that a crash could leave, whether or
    not the peer can be taken back."""
    ada, (text, _) = await exit_.client(), new_key()
    if replaces:
        await ada.open(client_public_key=text)
    before = exit_.rows("SELECT id, state FROM sessions")
    writer, tunnel, free = exit_.store._writer, exit_.tunnel, asyncio.Event()
    assert isinstance(tunnel, Scripted)
    execute = writer.execute

    async def locked(sql: str, *parameters: Any) -> Any:
        if sql == "BEGIN IMMEDIATE":
            await free.wait()
        return await execute(sql, *parameters)

    writer.execute = locked  # type: ignore[method-assign]
    assert (await ask(ada, client_public_key=text)).status_code == 503
    tunnel.before_apply = refuse
    free.set()
    await exit_.settled()
    assert exit_.rows("SELECT id, state FROM sessions") == before
    tunnel.before_apply = lambda _: None
    await settle(exit_)
    assert (exit_.parts.pool.in_use, len(tunnel.peers)) == (len(before), len(before))


@pytest.mark.parametrize("replaces", [False, True])
@on_exit('subnet = "10.101.0.0/30"\n')
async def test_ended_before_it_is_undone(exit_: ExitUnderTest, *, replaces: bool) -> None:
    """A session that has ended when it is to be undone: no peer is put back, and its address stays with its next
    holder."""
    ada, (text, raw) = await exit_.client(), new_key()
    if replaces:
        await ada.open(client_public_key=text)
    async with exit_.parts.peers.exit_lock:
        asking = asyncio.create_task(ask(ada, client_public_key=text))
        await until(lambda: exit_.parts.queue._waiting, "it waits for its batch")
        (request,) = exit_.parts.queue._waiting
    assert (await asking).status_code == 201
    await exit_.admin("UPDATE sessions SET state = 'closing', reason = 'admin' WHERE state = 'live'")
    await exit_.tick(after=1)
    exit_.parts.queue._leave(request)
    new = await ada.open()
    assert raw not in exit_.tunnel.peers
    await settle(exit_)
    assert exit_.rows("SELECT id FROM sessions WHERE state = 'live'") == [(new["id"],)]
    assert exit_.parts.pool.in_use == 1
