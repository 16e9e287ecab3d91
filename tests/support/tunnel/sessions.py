"""What the tests read out of a session: its keys, and its byte figures beside those of wg(8)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.support.tunnel.appliance_process import Transfer
from tests.support.tunnel.client import public_key_of
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.tunnel.appliance_process import Appliance


def client_key(config: str) -> str:
    """The client's public key in a config whose key pair the server made."""
    private = re.search(r"^PrivateKey = (\S+)$", config, re.MULTILINE)
    assert private is not None, config
    return public_key_of(private[1])


def figures(session: Mapping[str, Any]) -> Transfer:
    return Transfer(received=session["bytes_in"], sent=session["bytes_out"])


def settled_figures(appliance: Appliance, session_id: str, token: str, public_key: str) -> Transfer:
    """The session's figures once they equal the tunnel's own, which they must soon after traffic stops."""

    def equal() -> Transfer | None:
        shown, real = figures(appliance.session(session_id, token)), appliance.transfer(public_key)
        last[:] = [shown, real]
        return shown if shown == real else None

    last: list[Transfer] = []
    try:
        found = until(equal, "GET's bytes equal `wg show transfer`", seconds=60)
    except TimeoutError as error:
        message = f"the session says {last[0]}, wg(8) says {last[1]}"
        raise AssertionError(message) from error
    assert found is not None
    return found
