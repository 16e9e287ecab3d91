"""What the link uses or expects of nats-py that it does not promise to keep is still there."""

from __future__ import annotations

import inspect
import json
import re
from importlib.metadata import version
from typing import TYPE_CHECKING

from nats.aio.client import Client
from nats.aio.transport import Transport
from nats.protocol import parser

from appliance.fleet.link.nats_client import CuttingTransport, HubClient, LinkUser
from appliance.fleet.link.nkey import NKey

if TYPE_CHECKING:
    import ssl

TRANSPORT_METHODS = {
    *("connect", "connect_tls", "write", "writelines", "read", "readline", "drain", "wait_closed", "close"),
    *("at_eof", "__bool__"),
}


def source(name: str) -> str:
    return inspect.getsource(getattr(Client, name))


def test_version() -> None:
    """Another one is read anew, before it is taken."""
    assert version("nats-py") == "2.16.0"


def test_transport() -> None:
    """The methods of its base are all that a client calls, and a client keeps the transport that it has."""
    assert Transport.__abstractmethods__ == TRANSPORT_METHODS
    assert Client()._transport is None
    assert "if not self._transport:" in source("_connect_to_server")
    assert CuttingTransport()


def test_public_key() -> None:
    """What is set before `connect` is sent with the signature."""
    key = NKey.new()
    tls: ssl.SSLContext = None  # type: ignore[assignment]
    client = HubClient(LinkUser("ams1", "_INBOX_x", key, tls), None, None)  # type: ignore[arg-type]
    client._signature_cb = client._sign
    client._auth_configured = True
    client._server_info = {"nonce": "abc"}
    client.options = dict.fromkeys(("verbose", "pedantic", "token", "name", "no_echo", "user", "password"))
    sent = json.loads(client._connect_command().removeprefix(b"CONNECT "))
    assert sent["nkey"] == key.public
    assert "sig" in sent
    assert "_public_nkey" not in source("connect")


def test_an_error_while_dialing_is_told_before_the_next_try() -> None:
    """What the callback raises ends the dialing, with the cause."""
    assert "await self._error_cb(e)" in source("_select_next_server")
    assert "await self._error_cb(e)" in source("connect")


def test_refused_rights_are_told_in_lower_case() -> None:
    assert "await self._error_cb(err)" in source("_process_err")
    assert parser.PERMISSIONS_ERR == "permissions violation"
    assert "decode().lower()" in inspect.getsource(parser.Parser.parse)


def test_requests_wait_for_futures_by_token() -> None:
    """A TimeoutError that is set on one is raised to its caller as a timeout."""
    assert Client()._resp_map == {}
    request = source("_request_new_style")
    assert "self._resp_map[token.decode()] = future" in request
    assert "except asyncio.TimeoutError:" in request


def test_parser() -> None:
    """The one that is replaced has these methods, and calls these of the client; headers are read by this one."""
    assert isinstance(Client()._ps, parser.Parser)
    calls = set(re.findall(r"self\.nc\.(\w+)\(", inspect.getsource(parser.Parser)))
    assert calls == {"_process_err", "_process_ping", "_process_pong", "_process_info", "_process_msg"}
    used = {name for method in inspect.getmembers(Client, inspect.isfunction) for name in _of_parser(method[1])}
    assert used == {"parse", "reset"}
    assert "await self._process_headers(headers)" in source("_process_msg")
    assert list(inspect.signature(Client._process_msg).parameters)[1:] == ["sid", "subject", "reply", "data", "headers"]


def _of_parser(method: object) -> list[str]:
    return re.findall(r"self\._ps\.(\w+)\(", inspect.getsource(method))  # type: ignore[arg-type]


def test_a_ping_overtakes_what_is_pending() -> None:
    """If it no longer does, one is enough to know what the hub refused."""
    assert "self._transport.write(PING_PROTO)" in source("_send_ping")
    assert "self._pending.append" not in source("_send_ping")


def test_the_answer_to_a_ping_that_was_given_up_ends_the_reader() -> None:
    """If it no longer does, a ping may be cancelled."""
    assert "future.set_result(True)" in source("_process_pong")
    assert "done()" not in source("_process_pong")
