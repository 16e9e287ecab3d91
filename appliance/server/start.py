"""Starts the server, most of which is imported while its store is checked."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from appliance.server.beginning import begin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from appliance.config.load import Settings


def serve(read_settings: Callable[[], Settings], environ: Mapping[str, str]) -> None:
    """Runs the appliance until SIGTERM or SIGINT. Raises ApplianceError if it cannot start.

    SIGHUP reads the settings again, and applies those that can change at run time.
    """
    asyncio.run(_serve(read_settings, environ))


async def _serve(read_settings: Callable[[], Settings], environ: Mapping[str, str]) -> None:
    async with AsyncExitStack() as stack:
        begun = await begin(read_settings, environ, stack)
        # Most of the program: importing it takes about as long as the check of half a million sessions. It stays, so
        # the garbage collector is not to look at it, neither meanwhile nor later.
        gc.disable()
        from appliance.server import run

        gc.freeze()
        gc.enable()
        await run.run(begun, read_settings, environ, stack)
