"""While the store cannot serve: 503, nothing half done, and back to work by itself, with every byte billed once."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.api.answers import refused
from tests.support.api.exit_under_test import ExitUnderTest, new_key, on_exit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

PAGE = 4096


@asynccontextmanager
async def locked(exit_: ExitUnderTest) -> AsyncIterator[None]:
    """Another process holds the lock."""
    async with exit_.locked():
        yield


@asynccontextmanager
async def read_only(exit_: ExitUnderTest) -> AsyncIterator[None]:
    """SQLite writes nothing, as on a file system that was remounted after an error."""
    writer = exit_.store._writer
    await writer.execute("PRAGMA query_only = ON")
    yield
    await writer.execute("PRAGMA query_only = OFF")


@asynccontextmanager
async def damaged(exit_: ExitUnderTest) -> AsyncIterator[None]:
    """All but the file's first page is garbage, and what was read before is not to be relied on."""
    with garbage(exit_):
        yield


@contextmanager
def garbage(exit_: ExitUnderTest) -> Iterator[None]:
    with closing(sqlite3.connect(exit_.path, isolation_level=None)) as other:
        other.execute("UPDATE node SET drained = drained")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = exit_.path.read_bytes()
    overwrite(exit_, whole[:PAGE] + b"\xa5" * (len(whole) - PAGE))
    try:
        yield
    finally:
        overwrite(exit_, whole)


def held(exit_: ExitUnderTest) -> tuple[object, ...]:
    """What sessions occupy, without what their peers have counted."""
    rows, addresses, _, live = exit_.holdings()
    return rows, addresses, set(exit_.tunnel.peers), live


def overwrite(exit_: ExitUnderTest, content: bytes) -> None:
    with exit_.path.open("r+b") as file:
        file.write(content)


FAULTS: dict[str, tuple[Callable[[ExitUnderTest], AbstractAsyncContextManager[None]], str]] = {
    "locked": (locked, "locked"),
    "read-only": (read_only, "readonly"),
    "damaged": (damaged, "malformed"),
}


@pytest.mark.parametrize(("fault", "cause"), FAULTS.values(), ids=FAULTS)
@on_exit()
async def test_a_failing_store_is_503_and_loses_nothing(
    exit_: ExitUnderTest, fault: Callable[[ExitUnderTest], AbstractAsyncContextManager[None]], cause: str
) -> None:
    """503 to whoever needs the store, and /readyz says why; afterwards nothing is missing and nothing counted twice."""
    ada = await exit_.client()
    text, raw = new_key()
    opened = await ada.open(client_public_key=text)
    exit_.tunnel.add_traffic(raw, rx=100, tx=50)
    await exit_.tick()
    before = held(exit_)
    async with fault(exit_):
        exit_.tunnel.add_traffic(raw, rx=7, tx=3)
        await exit_.tick(after=10)
        refused(await ada.post(), 503, "store unavailable")
        ready = await exit_.http.get("/readyz")
        assert ready.status_code == 503
        assert cause in ready.json()["error"]
        assert (await exit_.http.get("/healthz")).status_code == 200
        answer = await ada.status_answer(opened["id"])
        if answer.status_code == 200:
            assert (answer.json()["bytes_in"], answer.json()["bytes_out"]) == (100, 50)
        else:
            refused(answer, 503, "store unavailable")
        refused(await ada.delete(opened["id"]), 503, "store unavailable")
    await exit_.tick(after=10)
    assert held(exit_) == before
    assert (await exit_.http.get("/readyz")).status_code == 200
    shown = await ada.status(opened["id"])
    assert (shown["bytes_in"], shown["bytes_out"]) == (107, 53)
    await ada.open()


@on_exit()
async def test_found_out_before_anybody_asks(exit_: ExitUnderTest) -> None:
    """With nobody live, a store that cannot be written still makes the node inactive within an interval."""
    async with locked(exit_):
        await exit_.tick(after=10)
        assert (await exit_.http.get("/v1/regions")).json() == {"regions": []}
    await exit_.tick(after=10)
    assert (await exit_.http.get("/v1/regions")).json() == {"regions": [{"code": "fsn", "node_count": 1}]}
