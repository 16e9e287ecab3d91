"""Limits the time of a shutdown."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

STOP_LIMIT_S = 10


@contextmanager
def hard_stop(stopping: asyncio.Event) -> Iterator[None]:
    """Exits STOP_LIMIT_S after the stop was requested, even if a thread, a device or the event loop hangs."""

    async def arm() -> None:
        await stopping.wait()
        timer.start()

    timer = threading.Timer(STOP_LIMIT_S, _give_up)
    timer.daemon = True
    arming = asyncio.ensure_future(arm())
    try:
        yield
    finally:
        arming.cancel()
        timer.cancel()


def _give_up() -> None:
    log.critical("not stopped within %d s; leaving as after a crash, the next start settles it", STOP_LIMIT_S)
    os._exit(1)
