"""What a batch of requests costs, counted: the same for one request and for many."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.api.exit_under_test import IMPATIENT, Client, ExitUnderTest, new_key, on_exit, until

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    import httpx

ROOMY = "[api]\npublic_burst = 1000\n[tiers.paid]\nmax_live_sessions = 0\nrequests_per_minute = 100000\n"
MANY = 40


@contextmanager
def calls(exit_: ExitUnderTest) -> Iterator[Counter[str]]:
    """Calls of the writer's connection, transactions among them, and of the tunnel."""
    seen: Counter[str] = Counter()
    replaced: list[tuple[object, str, object]] = []

    def count(of: Any, name: str, label: str) -> None:
        real = getattr(of, name)
        replaced.append((of, name, real))

        async def counted(*arguments: Any) -> Any:
            seen[label] += 1
            if arguments and arguments[0] == "COMMIT":
                seen["commits"] += 1
            return await real(*arguments)

        setattr(of, name, counted)

    for name in ("execute", "executemany", "execute_fetchall"):
        count(exit_.store._writer, name, "statements")
    count(exit_.tunnel, "apply", "messages")
    count(exit_.tunnel, "dump", "dumps")
    try:
        yield seen
    finally:
        for of, name, real in replaced:
            setattr(of, name, real)


async def as_one_batch(
    exit_: ExitUnderTest, requests: list[Coroutine[Any, Any, httpx.Response]]
) -> tuple[list[int], Counter[str]]:
    """The statuses of requests that have all arrived before their batch is cut, and what answering them took."""
    with calls(exit_) as seen:
        async with exit_.parts.peers.exit_lock:
            asking = [asyncio.create_task(request) for request in requests]
            await until(lambda: len(exit_.parts.queue._waiting) == len(requests), "all wait for their batch")
        answers = await asyncio.gather(*asking)
        await exit_.settled()
    return [answer.status_code for answer in answers], seen


async def opens(client: Client, many: int) -> list[Coroutine[Any, Any, httpx.Response]]:
    return [ask(client) for _ in range(many)]


async def replacements(client: Client, many: int) -> list[Coroutine[Any, Any, httpx.Response]]:
    keys = [new_key()[0] for _ in range(many)]
    for key in keys:
        await client.open(client_public_key=key)
    return [ask(client, client_public_key=key) for key in keys]


async def closes(client: Client, many: int) -> list[Coroutine[Any, Any, httpx.Response]]:
    opened = [await client.open() for _ in range(many)]
    return [end(client, o["id"]) for o in opened]


async def both(client: Client, many: int) -> list[Coroutine[Any, Any, httpx.Response]]:
    return [*await opens(client, many), *await replacements(client, many), *await closes(client, many)]


async def ask(client: Client, **fields: object) -> httpx.Response:
    """Without waiting for what the batch leaves to the next one."""
    return await client.exit_.http.post("/v1/sessions", json={"region": "fsn", **fields}, headers=client.headers)


async def end(client: Client, session_id: str) -> httpx.Response:
    return await client.exit_.http.delete(f"/v1/sessions/{session_id}", headers=client.headers)


KINDS: dict[str, tuple[Any, Counter[str]]] = {
    "opens": (opens, Counter(commits=1, messages=1)),
    "replacements": (replacements, Counter(commits=1, messages=1, dumps=1)),
    # After the answers, a transaction marks the sessions as terminated.
    "closes": (closes, Counter(commits=2, messages=1, dumps=1)),
    "all of them": (both, Counter(commits=2, messages=2, dumps=1)),
}


@pytest.mark.parametrize(("requests", "costs"), KINDS.values(), ids=KINDS)
@on_exit(ROOMY)
async def test_a_batch_costs_the_same_whatever_its_size(
    exit_: ExitUnderTest, requests: Any, costs: Counter[str]
) -> None:
    """At most two messages to the device, one dump, one commit before the answers; and as many statements for forty
    requests as for one."""
    client = await exit_.client()
    found = []
    for many in (1, MANY):
        statuses, seen = await as_one_batch(exit_, await requests(client, many))
        assert set(statuses) <= {200, 201}
        found.append(seen)
    assert found[0] == found[1]
    del found[0]["statements"]
    assert found[0] == costs


@on_exit(ROOMY)
async def test_what_arrives_while_a_batch_is_at_work_is_the_next(exit_: ExitUnderTest) -> None:
    """The first request does not wait for others; those that come meanwhile share the next batch."""
    client = await exit_.client()
    exit_.tunnel.gate.clear()
    first = asyncio.create_task(ask(client))
    await until(lambda: exit_.tunnel.waiting, "the first is at the tunnel")
    others = [asyncio.create_task(ask(client)) for _ in range(MANY)]
    await until(lambda: len(exit_.parts.queue._waiting) == MANY, "the others wait")
    with calls(exit_) as seen:
        exit_.tunnel.gate.set()
        answers = await asyncio.gather(first, *others)
    assert {answer.status_code for answer in answers} == {201}
    assert (seen["commits"], seen["messages"]) == (2, 1)  # the first one's message was sent before


@on_exit(ROOMY, environ=IMPATIENT)
async def test_closes_that_are_given_up_share_a_transaction(
    exit_: ExitUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    """The device hangs, and the time of many DELETEs is over: while one session is being stored as closing the others
    wait, to be stored together, and none is told that the store does not answer."""
    client = await exit_.client()
    ids = [(await client.open())["id"] for _ in range(MANY)]
    patiently_stored(exit_)
    with calls(exit_) as seen, commits_held(exit_) as release:
        async with exit_.parts.peers.exit_lock:
            asking = [asyncio.create_task(end(client, session_id)) for session_id in ids]
            await until(lambda: caplog.text.count("no answer in time") == MANY, "all are given up")
            release.set()
            answers = await asyncio.gather(*asking)
    assert {(a.status_code, a.json()["code"]) for a in answers} == {(503, "peer_apply_failed")}
    assert seen["commits"] <= 2
    assert exit_.rows("SELECT DISTINCT state, reason FROM sessions") == [("closing", "closed")]


def patiently_stored(exit_: ExitUnderTest) -> None:
    """Sessions that are given up may wait for longer than their requests have, on a slow machine."""
    given_up: Any = exit_.parts.services.sessions._ending._given_up
    ask, clock = given_up.ask, asyncio.get_running_loop().time
    given_up.ask = lambda request, _: ask(request, clock() + 60)


@contextmanager
def commits_held(exit_: ExitUnderTest) -> Iterator[asyncio.Event]:
    """No transaction is committed before the event is set."""
    writer: Any = exit_.store._writer
    real, release = writer.execute, asyncio.Event()

    async def execute(sql: str, *parameters: Any) -> Any:
        if sql == "COMMIT":
            await release.wait()
        return await real(sql, *parameters)

    writer.execute = execute
    try:
        yield release
    finally:
        writer.execute = real


@pytest.mark.parametrize("failing", range(1, 9))
@on_exit(ROOMY)
async def test_nothing_follows_a_statement_that_failed(exit_: ExitUnderTest, failing: int) -> None:
    """Whichever statement of an opening's transaction fails: SQLite is given ROLLBACK next, as it may have rolled back
    by itself, and what came after that would be in no transaction."""
    client, writer, given = await exit_.client(), exit_.store._writer, list[str]()
    real = {name: getattr(writer, name) for name in ("execute", "executemany", "execute_fetchall")}

    def watched(name: str) -> Any:
        async def statement(sql: str, *parameters: Any) -> Any:
            given.append(sql.strip())
            if len(given) == failing:
                raise sqlite3.OperationalError("database or disk is full")
            return await real[name](sql, *parameters)

        return statement

    for name in real:
        setattr(writer, name, watched(name))
    answer = await ask(client)
    await exit_.parts.queue.settled()
    for name, statement in real.items():
        setattr(writer, name, statement)
    if len(given) < failing:
        assert answer.status_code == 201
    else:
        assert answer.status_code == 503
        assert next(sql for sql in given[failing:] if not sql.startswith("PRAGMA")) == "ROLLBACK"
    await exit_.settled()
    assert (await ask(client)).status_code == 201
