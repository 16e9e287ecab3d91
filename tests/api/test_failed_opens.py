"""Requests that failed although their commit was made: nothing of them is left anywhere."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.api.exit_under_test import ExitUnderTest, new_key, on_exit, until

if TYPE_CHECKING:
    from collections.abc import Sequence

MADE_AND_LOST = "made and lost"  # committed, and said to have failed
NOT_BEGUN = "not begun"


def transactions_go(exit_: ExitUnderTest, fates: Sequence[str]) -> None:
    """What becomes of the next transactions, one each; `""`: nothing happens to it."""
    writer, coming, fate = exit_.store._writer, iter(fates), ""
    real = writer.execute

    async def execute(sql: str, *arguments: Any) -> Any:
        nonlocal fate
        if sql.startswith("BEGIN"):
            fate = next(coming, "")
            if fate == NOT_BEGUN:
                raise sqlite3.OperationalError("disk I/O error")
        found = await real(sql, *arguments)
        if sql == "COMMIT" and fate == MADE_AND_LOST:
            raise sqlite3.OperationalError("disk I/O error")
        return found

    writer.execute = execute  # type: ignore[method-assign,assignment]  # what it does, and may fail to


async def nothing_is_left(exit_: ExitUnderTest, key: str) -> None:
    await exit_.tick(after=1)
    await exit_.tick(after=1)
    assert exit_.rows("SELECT id FROM sessions") == []
    assert not exit_.parts.live
    assert exit_.parts.live.in_sync
    assert not exit_.tunnel.peers
    assert exit_.parts.pool.in_use == 0
    another = await exit_.client("bob")
    assert (await another.post(client_public_key=key)).status_code == 201


@pytest.mark.parametrize("fates", [[MADE_AND_LOST], [MADE_AND_LOST, NOT_BEGUN]], ids=["at once", "later"])
@on_exit()
async def test_the_row_of_a_failed_open_is_deleted(exit_: ExitUnderTest, fates: list[str]) -> None:
    """The row that was made is deleted, at once or by a tick that has read it already."""
    ada, (key, _) = await exit_.client(), new_key()
    transactions_go(exit_, fates)
    assert (await ada.post(client_public_key=key)).status_code == 503
    await nothing_is_left(exit_, key)


@on_exit()
async def test_a_tick_in_between(exit_: ExitUnderTest) -> None:
    """A tick that waits for its turn reads the row as live before the request takes it back."""
    ada, (key, _) = await exit_.client(), new_key()
    transactions_go(exit_, [MADE_AND_LOST])
    exit_.tunnel.gate.clear()
    asking = asyncio.create_task(ada.post(client_public_key=key))
    await until(lambda: exit_.parts.peers.exit_lock.locked(), "the request has its turn")
    ticking = asyncio.create_task(exit_.parts.ticker.tick(whole=False))
    await until(lambda: bool(exit_.parts.peers.exit_lock._waiters), "the tick waits for its own")
    exit_.tunnel.gate.set()
    assert (await asking).status_code == 503
    await ticking
    await nothing_is_left(exit_, key)
