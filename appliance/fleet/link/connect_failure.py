"""Names what keeps this host from a hub, from the error that dialing it ended with, and says what to do about it."""

from __future__ import annotations

import errno
import socket
import ssl
from enum import StrEnum
from typing import TYPE_CHECKING

from appliance.domain.clock import rfc3339
from appliance.domain.errors import ConnectFailed

if TYPE_CHECKING:
    from appliance.domain.clock import Moment


class Hindrance(StrEnum):
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    NAME_UNKNOWN = "name_unknown"
    SILENT = "silent"
    NOT_A_HUB = "not_a_hub"
    WRONG_CA = "wrong_ca"
    WRONG_NAME = "wrong_name"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    TLS_TOO_OLD = "tls_too_old"
    KEY_NOT_KNOWN = "key_not_known"
    FULL = "full"
    OTHER = "other"


# Not worth a try every half second: a person has to do something first, and each is a line in the hub's log.
LASTING = {
    *(Hindrance.WRONG_CA, Hindrance.WRONG_NAME, Hindrance.EXPIRED, Hindrance.NOT_YET_VALID, Hindrance.TLS_TOO_OLD),
    *(Hindrance.KEY_NOT_KNOWN, Hindrance.FULL),
}

TEXTS = {
    Hindrance.REFUSED: "{hub} refuses connections: does wg-appliance-hub.service run there, on this port?",
    Hindrance.UNREACHABLE: "{hub} is unreachable: has this host a route to it?",
    Hindrance.NAME_UNKNOWN: "the name in {hub} is unknown: check it, and this host's DNS",
    Hindrance.SILENT: "{hub} does not answer: do the firewalls on the way let this TCP port through?",
    Hindrance.NOT_A_HUB: "what answers at {hub} is no hub, or is just being stopped: check address and port",
    Hindrance.WRONG_CA: "{hub} has a certificate of another fleet, or this host was away while the fleet's authority "
    "was replaced; to come back: wg-appliance fleet leave --force here, then wg-appliance fleet invite on the hub",
    Hindrance.WRONG_NAME: "{hub} has a certificate for another name than {name}: join with a new token",
    Hindrance.EXPIRED: "the certificate of {hub} has expired, or this host's clock is ahead (it says {now}): "
    "check the clocks of both (timedatectl)",
    Hindrance.NOT_YET_VALID: "the certificate of {hub} is not valid yet: this host's clock is behind (it says {now}), "
    "or the hub's was ahead; check both (timedatectl)",
    Hindrance.TLS_TOO_OLD: "{hub} does not speak TLS 1.3: update what answers there",
    Hindrance.KEY_NOT_KNOWN: "{hub} does not know this host: it was forgotten, or the hub's backup is older than it; "
    "where hubs are being changed, wait a minute; to come back: wg-appliance fleet leave --force here, then "
    "wg-appliance fleet invite on the hub",
    Hindrance.FULL: "{hub} has as many connections as it takes: see `fleet status` there",
    Hindrance.OTHER: "cannot connect to {hub}: {error}",
}

# X509_V_ERR_…, https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/
VERIFY_CODES = {9: Hindrance.NOT_YET_VALID, 10: Hindrance.EXPIRED, 62: Hindrance.WRONG_NAME, 64: Hindrance.WRONG_NAME}
TOO_OLD = {"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"}
ERRNOS = {
    errno.ECONNREFUSED: Hindrance.REFUSED,
    errno.ENETUNREACH: Hindrance.UNREACHABLE,
    errno.EHOSTUNREACH: Hindrance.UNREACHABLE,
    errno.EADDRNOTAVAIL: Hindrance.UNREACHABLE,
    errno.ETIMEDOUT: Hindrance.SILENT,
}


def hindrance(error: Exception) -> Hindrance:
    """Returns which of them it was. nats-py has no classes for what a server says: its text is looked into."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return VERIFY_CODES.get(error.verify_code, Hindrance.WRONG_CA)
    if isinstance(error, ssl.SSLError):
        return Hindrance.TLS_TOO_OLD if error.reason in TOO_OLD else Hindrance.NOT_A_HUB
    if isinstance(error, socket.gaierror | UnicodeError):  # the latter: no name could be so
        return Hindrance.NAME_UNKNOWN
    if isinstance(error, TimeoutError):
        return Hindrance.SILENT
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):  # asyncio's have no errno
        return Hindrance.NOT_A_HUB
    if isinstance(error, OSError):
        return ERRNOS.get(error.errno or 0) or _of_several(str(error))
    return _said(str(error).lower())


def _of_several(text: str) -> Hindrance:
    """Reads asyncio's OSError for a name with several addresses, which has no errno: 'Multiple exceptions: …'."""
    for number, found in ERRNOS.items():
        if f"[Errno {number}]" in text:
            return found
    return Hindrance.OTHER


def _said(text: str) -> Hindrance:
    if "authorization violation" in text:
        return Hindrance.KEY_NOT_KNOWN
    if "maximum connections" in text or "maximum account active connections" in text:
        return Hindrance.FULL
    if "expecting info" in text or "info message" in text or "unexpected eof" in text:
        return Hindrance.NOT_A_HUB
    return Hindrance.OTHER


def connect_failed(error: Exception, hub: str, name: str, now: Moment) -> ConnectFailed:
    """Returns what to raise for the error. `hub`: as HOST:PORT; `name`: that its certificate is to have."""
    found = hindrance(error)
    text = TEXTS[found].format(hub=hub, name=name, now=rfc3339(now.wall_ms), error=str(error) or type(error).__name__)
    return ConnectFailed(found, text)
