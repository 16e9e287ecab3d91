"""What keeps a host from a hub is found out in bounded time, and is one named reason with what to do."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from appliance.domain.clock import HostClock
from appliance.domain.errors import ConnectFailed, FleetError
from appliance.fleet.hub.certificates import DAY_MS, make_authority, make_leaf
from appliance.fleet.link.connect_failure import Hindrance
from appliance.fleet.link.hub_connection import HubConnection
from appliance.fleet.link.link import NatsLink, hub_tls
from appliance.fleet.link.nats_client import LinkUser
from appliance.fleet.link.nkey import NKey
from tests.support.fleet.hub_process import SECONDS, SERVER_NAME, At, HubProcess, free_port
from tests.support.fleet.link_contract import AMS, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from appliance.fleet.link.link import LinkState

NOW = HostClock().now().wall_ms


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("hub"), AMS) as hub:
        yield hub


def fails(user: LinkUser, at: At) -> ConnectFailed:
    """Dials; nothing may be left behind."""

    async def dial() -> ConnectFailed:
        with pytest.raises(ConnectFailed) as failed:
            await HubConnection.dial(user, at, HostClock())
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return failed.value

    return asyncio.run(dial())


def served(hub: HubProcess, leaf: Callable[[HubProcess], object]) -> ConnectFailed:
    """Dials a hub with this certificate."""
    other = HubProcess(hub.folder.parent / "other", AMS)
    other.authority, other.keys, other.leaf = hub.authority, hub.keys, leaf(hub)  # type: ignore[assignment]
    with other:
        return fails(hub.user(AMS), other.at())


def test_a_hub_is_given_up_for_another(hub: HubProcess) -> None:
    """Once, and not again at once: the other may be away, and this one all that there is."""

    async def story() -> None:
        hubs = hub.at(), At(f"localhost:{hub.port}")
        link = NatsLink(lambda: hubs, hub.user(AMS), HostClock())
        link.start()
        try:
            await link.wait_connected(SECONDS)
            first = link.state.hub
            link.dial_another()
            await until(lambda: link.connected and link.state.hub != first, "the other one")
            link.dial_another()
            await asyncio.sleep(0)
            assert link.connected
        finally:
            await link.close()

    asyncio.run(story())


def test_refused(hub: HubProcess) -> None:
    failed = fails(hub.user(AMS), At(f"127.0.0.1:{free_port()}"))
    assert failed.reason is Hindrance.REFUSED
    assert "wg-appliance-hub.service" in str(failed)


@pytest.mark.parametrize("name", ["x" * 64 + ".invalid:7422", "a..invalid:7422"])
def test_a_name_that_is_none(hub: HubProcess, name: str) -> None:
    assert fails(hub.user(AMS), At(name)).reason is Hindrance.NAME_UNKNOWN


@pytest.mark.parametrize("address", ["", "127.0.0.1", "a b:1", "http://127.0.0.1:1", "127.0.0.1:port"])
def test_what_is_no_address(hub: HubProcess, address: str) -> None:
    assert "HOST:PORT" in str(fails(hub.user(AMS), At(address)))


def test_another_authority(hub: HubProcess) -> None:
    user = LinkUser(AMS, f"_INBOX_{AMS}", hub.keys[AMS], hub.tls(make_authority("flt_other", NOW)))
    assert fails(user, hub.at()).reason is Hindrance.WRONG_CA


def test_another_name(hub: HubProcess) -> None:
    failed = fails(hub.user(AMS), At(hub.at().address, "other.fleet.internal"))
    assert failed.reason is Hindrance.WRONG_NAME
    assert "other.fleet.internal" in str(failed)


def test_an_expired_certificate(hub: HubProcess) -> None:
    """Or a clock that is ahead: the message says this host's."""
    failed = served(hub, lambda hub: make_leaf(hub.authority, SERVER_NAME, NOW - 200 * DAY_MS))
    assert failed.reason is Hindrance.EXPIRED
    assert "timedatectl" in str(failed)


def test_a_certificate_that_is_not_valid_yet(hub: HubProcess) -> None:
    failed = served(hub, lambda hub: make_leaf(hub.authority, SERVER_NAME, NOW + 10 * DAY_MS))
    assert failed.reason is Hindrance.NOT_YET_VALID
    assert "clock is behind" in str(failed)


def test_a_key_that_is_not_known(hub: HubProcess) -> None:
    failed = fails(hub.user(AMS, NKey.new()), hub.at())
    assert failed.reason is Hindrance.KEY_NOT_KNOWN
    assert "fleet invite" in str(failed)


@contextmanager
def other_server(greeting: bytes, tls: ssl.SSLContext | None) -> Iterator[int]:
    """Serves one connection; yields the port."""

    def serve() -> None:
        client, _ = listener.accept()
        with client, suppress(OSError):
            client.sendall(greeting)
            if tls is not None:
                tls.wrap_socket(client, server_side=True).close()
            elif not greeting:
                client.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(SECONDS)
    assert not thread.is_alive()


def test_a_refusal_is_heard_whenever_it_comes(hub: HubProcess) -> None:
    """The server closes with what it says: nothing that the host still sends then may hide it."""
    told = []

    def refuse() -> None:
        client, _ = listener.accept()
        client.sendall(b'INFO {"server_id":"x","version":"2.15.1","tls_required":true,"max_payload":1}\r\n')
        with tls.wrap_socket(client, server_side=True) as inside:
            told.append(inside.recv(65_536))  # one record of TLS
            inside.sendall(b"-ERR 'Authorization Violation'\r\n")

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(hub.folder / "leaf.pem", hub.folder / "leaf.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse)
        thread.start()
        failed = fails(hub.user(AMS), At(f"127.0.0.1:{listener.getsockname()[1]}"))
        thread.join(SECONDS)
    assert failed.reason is Hindrance.KEY_NOT_KNOWN
    assert told[0].startswith(b"CONNECT ")
    assert told[0].endswith(b"\r\nPING\r\n")


def fails_at_other(user: LinkUser, greeting: bytes, tls: ssl.SSLContext | None = None) -> ConnectFailed:
    with other_server(greeting, tls) as port:
        return fails(user, At(f"127.0.0.1:{port}"))


def test_tls_that_is_too_old(hub: HubProcess) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.load_cert_chain(hub.folder / "leaf.pem", hub.folder / "leaf.key")
    greeting = b'INFO {"server_id":"x","version":"2.15.1","tls_required":true,"max_payload":1}\r\n'
    assert fails_at_other(hub.user(AMS), greeting, old).reason is Hindrance.TLS_TOO_OLD


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"INFO {\r\n"])
def test_what_is_no_hub(hub: HubProcess, greeting: bytes) -> None:
    assert fails_at_other(hub.user(AMS), greeting).reason is Hindrance.NOT_A_HUB


def test_what_listens_and_is_silent(hub: HubProcess) -> None:
    """In seconds."""
    failed = fails_at_other(hub.user(AMS), b"")
    assert failed.reason is Hindrance.SILENT
    assert "firewall" in str(failed)


def test_a_ca_that_is_none() -> None:
    with pytest.raises(ValueError, match="no certificate"):
        hub_tls("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def test_the_link_goes_on_trying_and_says_what_keeps_it(hub: HubProcess, tmp_path: Path) -> None:
    """The reason is told once; it connects by itself when it can, to whichever of the hubs is there."""

    async def story() -> None:
        states: list[LinkState] = []
        late = HubProcess(tmp_path, AMS)
        late.authority, late.leaf, late.keys = hub.authority, hub.leaf, hub.keys
        hubs = (At(f"127.0.0.1:{free_port()}"), late.at())
        link = NatsLink(lambda: hubs, hub.user(AMS), HostClock(), states.append)
        link.start()
        with pytest.raises(ConnectFailed) as failed:
            await link.wait_connected(1.5)
        assert failed.value.reason is Hindrance.REFUSED
        assert [state.failure.reason for state in states if state.failure] == [Hindrance.REFUSED]
        with late:
            await link.wait_connected(SECONDS)
            assert (states[-1].connected, states[-1].hub) == (True, late.at().address)
            await link.close()
        assert not link.connected

    asyncio.run(story())


def test_a_host_that_is_forgotten_is_told_so_and_comes_back_when_it_is_let_in(tmp_path: Path) -> None:
    """Its connection ends with the reload, then its key is not known; no new link is needed."""

    async def story() -> None:
        with HubProcess(tmp_path, AMS) as hub:
            link = NatsLink(lambda: (hub.at(),), hub.user(AMS), HostClock())
            link.start()
            await link.wait_connected(SECONDS)
            key = hub.keys.pop(AMS)
            hub.reload()
            await until(lambda: link.state.failure is not None, "it is told")
            assert link.state.failure is not None
            assert link.state.failure.reason is Hindrance.KEY_NOT_KNOWN
            with pytest.raises(FleetError):
                await link.publish("wga.hb.x", b"")
            hub.keys[AMS] = key
            hub.reload()
            await link.wait_connected(SECONDS)
            await link.close()

    asyncio.run(story())
