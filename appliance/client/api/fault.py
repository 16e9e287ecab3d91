"""Says in words why there was no answer, and whether asking again may help. Pure."""

from __future__ import annotations

from http.client import BadStatusLine, IncompleteRead, RemoteDisconnected
from typing import NamedTuple

from appliance.client.api.wire import TooManyBytes

# What OpenSSL calls bytes that are no TLS: https://docs.openssl.org/master/man3/ERR_get_error/
NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL"}


class Fault(NamedTuple):
    """`lasting`: it will be the same the next time."""

    words: str
    lasting: bool


def explain(error: Exception, url: str) -> Fault:
    """`url`: the API's, of which another spelling may be advised."""
    import ssl

    if isinstance(error, ssl.SSLError) and not isinstance(error, TimeoutError):
        return _of_tls(error, url)
    if isinstance(error, RemoteDisconnected | ConnectionResetError):
        return Fault(f"the connection was closed without an answer{_other(url, 'http', 'https')}", lasting=False)
    if isinstance(error, BadStatusLine):
        return Fault(f"what listens there does not speak HTTP{_other(url, 'http', 'https')}", lasting=True)
    if isinstance(error, TooManyBytes):
        return Fault(f"{error}; is it this appliance that answers?", lasting=True)
    if isinstance(error, IncompleteRead):
        return Fault("the answer breaks off", lasting=False)
    return Fault(str(getattr(error, "strerror", None) or error), lasting=False)


def _of_tls(error: Exception, url: str) -> Fault:
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return Fault(f"certificate verify failed: {error.verify_message}", lasting=True)
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Fault(f"the connection was closed within the TLS handshake{_other(url, 'https', 'http')}", lasting=False)
    reason = str(getattr(error, "reason", None) or "unknown")
    if reason in NO_TLS:
        return Fault(f"what listens there does not speak TLS{_other(url, 'https', 'http')}", lasting=True)
    return Fault(f"no TLS connection: {reason.replace('_', ' ').lower()}", lasting=True)


def _other(url: str, scheme: str, instead: str) -> str:
    prefix = f"{scheme}://"
    return f"; is it {instead}://{url.removeprefix(prefix)}?" if url.startswith(prefix) else ""
