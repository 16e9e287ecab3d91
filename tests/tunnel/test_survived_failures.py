"""What sessions outlive: a restart or a crash of the appliance, the loss of its interface, a device that hangs."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.tunnel.appliance_process import REGION
from tests.support.tunnel.client import Received, new_key_pair
from tests.support.tunnel.sessions import client_key, figures, settled_figures
from tests.support.tunnel.waiting import until
from tests.support.tunnel.webserver import blob_sha256
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client
    from tests.support.tunnel.http_api import Answer
    from tests.support.tunnel.world import World

LONG = 20_000_000  # two minutes at a trickle: no restart takes as long
APPLY_FAILED = {"error": "peer apply failed; node may be disconnected", "code": "peer_apply_failed"}
# One client address alone: one that leaked after a failure would be missed by the next session.
ONE_CLIENT = {"subnet": "10.101.0.0/30"}


@pytest.mark.under_kernel
@pytest.mark.parametrize("ending", [pytest.param("stop", marks=pytest.mark.long), "kill"])
def test_a_restart_under_a_download_loses_nothing(
    world: World, start_appliance: Callable[..., Appliance], client: Client, ending: str
) -> None:
    """Stopped or killed and started again under a download: it goes on, arrives intact, and every byte is counted."""
    appliance = start_appliance(wireguard={"keep_on_exit": True})
    token = appliance.token()
    session = appliance.open(token)
    key = client_key(session["wg_config"])
    client.wg_quick(session["wg_config"])
    client.address_seen()
    download = client.start_download(LONG, "long", slow_until="restarted")
    until(lambda: figures(appliance.session(session["id"], token)).sent > 500_000, "the download is counted")
    before = figures(appliance.session(session["id"], token))

    getattr(appliance, ending)()
    received = download.received()
    until(lambda: download.received() > received + 200_000, "the download goes on without the appliance")
    appliance.start()
    assert download.running(), "the restart fell into the download"
    after = figures(appliance.session(session["id"], token))
    assert after.sent >= before.sent
    assert after.received >= before.received

    world.open_gate("restarted")
    assert download.finish() == Received(LONG, blob_sha256(LONG, "long"))
    client.down()
    assert settled_figures(appliance, session["id"], token, key).sent > LONG


def test_a_lost_interface_comes_back_with_its_peers(appliance: Appliance, client: Client) -> None:
    """The interface vanishes under a live session: it is made again with its peer, and no counted byte is lost."""
    token = appliance.token()
    session = appliance.open(token)
    key = client_key(session["wg_config"])
    client.wg_quick(session["wg_config"])
    client.address_seen()
    client.download(1_000_000, "before")
    until(lambda: figures(appliance.session(session["id"], token)).sent > 1_000_000, "the download is counted")
    before = figures(appliance.session(session["id"], token))

    _lose_interface(appliance)
    until(lambda: key in appliance.peers(), "the peer is back in the tunnel")
    # The client finds out by itself: without an answer it shakes hands anew after 15 s.
    assert client.address_seen() == EXIT_IP
    client.down()

    def carried_on() -> bool:
        shown, real = figures(appliance.session(session["id"], token)), appliance.transfer(key)
        return shown.sent >= before.sent + real.sent and shown.received >= before.received + real.received

    until(carried_on, "the new interface's bytes come on top of the old one's", seconds=60)


def test_an_interface_lost_before_a_request(start_appliance: Callable[..., Appliance], client: Client) -> None:
    """POST with the interface gone: a working session, or 503 and nothing left; soon after, sessions work again."""
    appliance = start_appliance(wireguard=ONE_CLIENT)
    token = appliance.token()
    _lose_interface(appliance)
    answer = _post(appliance, token)
    if answer.status == 201:
        session = answer.body
    else:
        _assert_nothing_left(appliance, answer)
        session = _open_when_recovered(appliance, token)
    client.wg_quick(session["wg_config"])
    assert client.address_seen() == EXIT_IP
    assert appliance.peers() == {client_key(session["wg_config"])}


@pytest.mark.under_kernel
@pytest.mark.parametrize("losses", [1, pytest.param(3, marks=pytest.mark.long)])
def test_an_interface_lost_under_a_request(start_appliance: Callable[..., Appliance], losses: int) -> None:
    """The interface vanishes while POST is being answered, again and again: tunnel and store agree each time."""
    appliance = start_appliance(wireguard=ONE_CLIENT)
    token = appliance.token()
    with ThreadPoolExecutor(max_workers=1) as beside:
        for _ in range(losses):
            asked = beside.submit(_post, appliance, token)
            _lose_interface(appliance)
            answer = asked.result()
            if answer.status == 201:
                session = answer.body
            else:
                _assert_nothing_left(appliance, answer)
                session = _open_when_recovered(appliance, token)
            _await_peers(appliance, {client_key(session["wg_config"])})
            appliance.close(session["id"], token)
            assert appliance.live_sessions() == []
            until(lambda: appliance.api("GET", "/readyz").status == 200, "the appliance is ready again")


def test_a_device_that_hangs(start_appliance: Callable[..., Appliance], client: Client, backend: str) -> None:
    """A wireguard-go that does not answer: 503 within the timeout, nothing left when it wakes, then all is well."""
    if backend != "userspace":
        pytest.skip("a kernel device cannot be made to hang")
    appliance = start_appliance(wireguard=ONE_CLIENT | {"apply_timeout": "2s"})
    token = appliance.token()
    (wireguard_go,) = appliance.space.pids_of("wireguard-go")
    os.kill(wireguard_go, signal.SIGSTOP)
    try:
        answer = _post(appliance, token, client_public_key=new_key_pair().public)
        _assert_nothing_left(appliance, answer)
    finally:
        os.kill(wireguard_go, signal.SIGCONT)
    session = _open_when_recovered(appliance, token)
    client.wg_quick(session["wg_config"])
    assert client.address_seen() == EXIT_IP
    assert appliance.peers() == {client_key(session["wg_config"])}


def _lose_interface(appliance: Appliance) -> None:
    """Take the interface away behind the appliance's back, in the backend's own way."""
    if appliance.backend == "kernel":
        appliance.space.run("ip", "link", "del", "dev", appliance.interface)
        return
    (wireguard_go,) = appliance.space.pids_of("wireguard-go")
    os.kill(wireguard_go, signal.SIGKILL)


def _await_peers(appliance: Appliance, expected: set[str]) -> None:
    until(lambda: appliance.peers() == expected, "the tunnel holds the live sessions' peers and no others")


def _post(appliance: Appliance, token: str, **body: object) -> Answer:
    return appliance.api("POST", "/v1/sessions", {"region": REGION} | body, token)


def _assert_nothing_left(appliance: Appliance, answer: Answer) -> None:
    assert (answer.status, answer.body) == (503, APPLY_FAILED)
    assert int(answer.headers["retry-after"]) > 0
    assert appliance.live_sessions() == []


def _open_when_recovered(appliance: Appliance, token: str) -> dict[str, Any]:
    """The first session that is granted again; until then only 503 will do."""

    def attempt() -> dict[str, Any] | None:
        answer = _post(appliance, token)
        assert answer.status in {201, 503}, answer
        return dict(answer.body) if answer.status == 201 else None

    opened = until(attempt, "sessions are granted again")
    assert opened is not None
    return opened
