"""The store is checked beside what else a start does."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING

import pytest

from appliance.domain.errors import HostError, StoreError
from appliance.server import opened_store
from appliance.store import integrity
from appliance.store.database import Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

LONG_S = 30


class Held:
    """Stands in place of the check; ends when it may."""

    def __init__(self, fault: StoreError | None = None) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.ended = False
        self._fault = fault

    def __call__(self, _: Path) -> None:
        self.begun.set()
        assert self.may_end.wait(LONG_S)
        self.ended = True
        if self._fault is not None:
            raise self._fault


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    held = Held(StoreError("damaged"))
    monkeypatch.setattr(integrity, "check", held)
    return held


def go_through(path: Path, block: Callable[[asyncio.Future[None]], Awaitable[None]]) -> None:
    """Runs the block beside the check, in a loop of its own."""

    async def run() -> None:
        async with opened_store.checking(path) as checked:
            await block(checked)

    asyncio.run(run())


def test_the_check_begins_before_the_loop_goes_on(held: Held, tmp_path: Path) -> None:
    """What the block does without awaiting anything, as importing the program, it does beside the check."""

    async def block(checked: asyncio.Future[None]) -> None:
        assert held.begun.wait(LONG_S)
        assert not checked.done()
        held.may_end.set()

    go_through(tmp_path / "store", block)
    assert held.ended


def test_what_the_check_finds_is_raised_where_it_is_awaited(held: Held, tmp_path: Path) -> None:
    """And nothing that stands behind it in the block is done."""

    async def block(checked: asyncio.Future[None]) -> None:
        held.may_end.set()
        await checked
        pytest.fail("the block went on")

    with pytest.raises(StoreError, match="damaged"):
        go_through(tmp_path / "store", block)


def test_what_the_block_failed_with_is_said(held: Held, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And nothing of what the check finds as well; the check has ended all the same."""

    async def block(_: asyncio.Future[None]) -> None:
        asyncio.get_running_loop().call_soon(held.may_end.set)
        raise HostError("no route")

    with pytest.raises(HostError, match="no route"):
        go_through(tmp_path / "store", block)
    assert held.ended
    gc.collect()
    assert not caplog.records


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    """It is the file that is checked, before it is opened."""
    path = tmp_path / "store.sqlite"

    async def make() -> None:
        await (await Store.open(path)).close()

    async def block(checked: asyncio.Future[None]) -> None:
        await checked

    asyncio.run(make())
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises(StoreError, match="is damaged"):
        go_through(path, block)


def test_a_store_that_is_not_there_passes(tmp_path: Path) -> None:
    """It is made later; the check makes no file."""

    async def block(checked: asyncio.Future[None]) -> None:
        await checked

    go_through(tmp_path / "store.sqlite", block)
    assert not [*tmp_path.iterdir()]
