"""Each way in which connecting to a hub fails has one name and says what to do; tests/fleet makes most happen."""

from __future__ import annotations

import errno
import os
import socket

import pytest
from nats.errors import Error

from appliance.domain.clock import Moment
from appliance.domain.errors import CutOff
from appliance.fleet.link.connect_failure import TEXTS, Hindrance, connect_failed, hindrance

NOW = Moment(1_790_000_400_000, 0, "boot-1")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ECONNREFUSED, "Connect call failed"), Hindrance.REFUSED),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), Hindrance.UNREACHABLE),
        (OSError(errno.EHOSTUNREACH, "No route to host"), Hindrance.UNREACHABLE),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), Hindrance.SILENT),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 101] …"), Hindrance.REFUSED),
        (ConnectionResetError(), Hindrance.NOT_A_HUB),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), Hindrance.NOT_A_HUB),
        (OSError(errno.EMFILE, "Too many open files"), Hindrance.OTHER),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), Hindrance.NAME_UNKNOWN),
        (TimeoutError(), Hindrance.SILENT),
        (Error("nats: 'Authorization Violation'"), Hindrance.KEY_NOT_KNOWN),
        (Error("nats: 'Authentication Timeout'"), Hindrance.OTHER),
        (Error("nats: 'maximum connections exceeded'"), Hindrance.FULL),
        (Error("nats: 'maximum account active connections exceeded'"), Hindrance.FULL),
        (Error("nats: empty response from server when expecting INFO message"), Hindrance.NOT_A_HUB),
    ],
)
def test_what_it_was(error: Exception, expected: Hindrance) -> None:
    assert hindrance(error) is expected


@pytest.mark.parametrize("found", Hindrance)
def test_each_has_a_sentence(found: Hindrance) -> None:
    assert found in TEXTS


def test_the_message_names_the_hub_and_this_hosts_clock() -> None:
    """It is one of cut off, so that who cares for no more need not know it."""
    failed = connect_failed(OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "fra1.example:7422", "hub", NOW)
    assert isinstance(failed, CutOff)
    assert (failed.reason, str(failed)) == (
        "other",
        "cannot connect to fra1.example:7422: [Errno 24] Too many open files",
    )
    assert "2026-09-21T14:20:00Z" in TEXTS[Hindrance.EXPIRED].format(hub="h", now="2026-09-21T14:20:00Z")
