"""Loads the TLS certificate and key, and reloads them when the files are renewed."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from pathlib import Path

# Forward secrecy and authenticated encryption, as all suites of TLS 1.3 have them (RFC 9325, section 4.2).
CIPHERS_OF_TLS_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20"

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
        state = self._state_of_files()
        if state != self._seen:
            self._seen = state
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
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS_OF_TLS_1_2)
        context.set_alpn_protocols(["http/1.1"])
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
