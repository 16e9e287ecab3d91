"""Notifies systemd of the service's state: sd_notify(3), one datagram of `VARIABLE=value` lines per message.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html (Notes: the protocol is stable, and may be used
without the library).
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

# systemd reads at once unless it is re-executing itself; a notification is not worth more of the event loop's time.
SEND_TIMEOUT_S = 0.2


class Systemd:
    """Notifies the systemd that started this service of `Type=notify`. Without one, messages are dropped."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(environ)

    @property
    def listens(self) -> bool:
        return self._address is not None

    def ready(self, status: str) -> None:
        self._tell(READY="1", STATUS=status)

    def reloading(self) -> None:
        """Reports that a reload has begun; `ready` follows. systemd 253 and later match the two by the time."""
        self._tell(RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))

    def stopping(self, status: str) -> None:
        self._tell(STOPPING="1", STATUS=status)

    def status(self, status: str) -> None:
        """Sets the text that `systemctl status` shows."""
        self._tell(STATUS=status)

    def alive(self) -> None:
        """Notifies the watchdog; after `watchdog_s` without this, systemd kills and restarts the service."""
        self._tell(WATCHDOG="1")

    def _tell(self, **fields: str) -> None:
        if self._address is None:
            return
        lines = (f"{name}={' '.join(value.splitlines())}\n" for name, value in fields.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaking:
            speaking.settimeout(SEND_TIMEOUT_S)
            try:
                speaking.sendto("".join(lines).encode(), self._address)
            except OSError as error:
                log.warning("systemd could not be notified of %s: %s", "=, ".join(fields), error)


def _address(text: str) -> str | None:
    """Returns the socket's address, unix(7): an abstract name, written with an @, begins with a zero byte. Other kinds
    (vsock) are for virtual machines."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Returns the watchdog's interval, sd_watchdog_enabled(3). The variables may be inherited and meant for another
    process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1_000_000 if text.isascii() and text.isdigit() and int(text) else None
