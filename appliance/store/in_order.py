"""Runs several statements with one wait for all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine


async def in_order(*statements: Coroutine[object, object, object]) -> None:
    """Runs coroutines that begin with a statement each: the connection's thread runs those one after another.

    On a busy server most of a short statement's time is the way to its thread and back. What a coroutine does after
    its first statement is in no order with the others'. If one raises, the others have been queued all the same: only
    for a transaction, which is rolled back then.
    """
    await asyncio.gather(*statements)
