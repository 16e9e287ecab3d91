"""Loads the TLS certificate and key, and reloads them when the files are renewed."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


class Certificate:
    """Holds a certificate and checks it for renewal at each new connection. Open connections keep theirs."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Loads PEM files. Raises HostError if they cannot be read or do not match."""
        self._files = (cert, key)
        self._seen = self._state_of_files()
        try:
            self._context = self._load()
        except (OSError, ValueError) as error:
            raise HostError(f"api.tls_cert {cert} and api.tls_key {key}: cannot be used: {_reason(error)}") from error

    def current(self) -> ssl.SSLContext:
        """Returns the renewed pair as soon as both files exist and match, else the last one."""
        found = self._state_of_files()
        if found != self._seen:
            self._seen = found
            try:
                self._context = self._load()
            except (OSError, ValueError) as error:
                log.error("the renewed certificate is not taken over, the old one stays: %s", _reason(error))
            else:
                log.info("the renewed certificate is taken over")
        return self._context

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cert, key = self._files
        # Without a password, OpenSSL would ask for a passphrase at the terminal and block the server.
        context.load_cert_chain(cert, key, password="")
        return context

    def _state_of_files(self) -> list[tuple[int, int, int] | None]:
        return [_state(file) for file in self._files]


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "not PEM, or with a passphrase"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
