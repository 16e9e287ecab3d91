"""Catches the signals that a service manager sends to the server."""

from __future__ import annotations

import asyncio
import signal


def catch_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Catches the signals of the server. Returns the events that they set: to stop, and to reload."""
    stopping, reload_asked = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, reload_asked.set)
    return stopping, reload_asked
