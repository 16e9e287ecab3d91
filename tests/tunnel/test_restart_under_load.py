"""The appliance is restarted while fifty clients ask for their figures and five download."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.client import Received
from tests.support.tunnel.ping import Ping
from tests.support.tunnel.polling import polling
from tests.support.tunnel.sessions import client_key, settled_figures
from tests.support.tunnel.waiting import until
from tests.support.tunnel.webserver import blob_sha256
from tests.support.tunnel.world import WEB_IP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client, Download
    from tests.support.tunnel.world import World

POLLERS = 50
LONG = 20_000_000  # two minutes at a trickle: no restart takes as long
ROOM = {"requests_per_minute": 10**6, "max_live_sessions": 0}
ENDINGS = {"stop": "SIGTERM", "kill": "kill -9"}


@pytest.fixture(params=[2, pytest.param(5, marks=pytest.mark.long)])
def client_count(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_a_restart_under_load_loses_nothing(
    world: World,
    start_appliance: Callable[..., Appliance],
    clients: list[Client],
    tmp_path: Path,
    show: Callable[[str], None],
) -> None:
    """Stopped, and killed, and started again: downloads go on without it and arrive intact, a ping through a tunnel
    loses no packet, whoever polls is answered truly or not at all, and every byte is counted."""
    appliance = start_appliance(
        wireguard={"keep_on_exit": True}, api={"public_requests_per_minute": 10**6}, **{"tiers.free": ROOM}
    )
    token = appliance.token()
    sessions = [appliance.open(token) for _ in range(POLLERS)]
    for client, session in zip(clients, sessions, strict=False):
        client.wg_quick(session["wg_config"])
        client.address_seen()
    seeds = [f"long{number}" for number in range(len(clients))]
    downloads = [
        client.start_download(LONG, seed, slow_until="restarted") for client, seed in zip(clients, seeds, strict=True)
    ]
    with ExitStack() as stack:
        ping = Ping(clients[0].space, WEB_IP, tmp_path / "ping")
        stack.callback(ping.kill)
        stop_polling = stack.enter_context(polling(world.exit, [session["id"] for session in sessions], token))
        _all_go_on(downloads, ping)
        spans = [_restart(appliance, ending, downloads, ping) for ending in ENDINGS]
        pinged, polls = ping.stop(), stop_polling()
    assert all(download.running() for download in downloads), "the restarts fell into the downloads"
    assert polls.odd == []
    assert all(any(since <= when <= upto for since, upto in spans) for when in polls.failed)
    assert pinged.outages == []

    world.open_gate("restarted")
    for download, seed in zip(downloads, seeds, strict=True):
        assert download.finish() == Received(LONG, blob_sha256(LONG, seed))
    for client, session in zip(clients, sessions, strict=False):
        client.down()
        assert settled_figures(appliance, session["id"], token, client_key(session["wg_config"])).sent > LONG
    for ending, span in zip(ENDINGS.values(), spans, strict=True):
        show(f"{appliance.backend}, {ending} and start: nobody was answered for {polls.downtime(*span):.2f} s")
    show(
        f"{appliance.backend}: {len(polls.answered)} polls answered, {len(polls.failed)} not; "
        f"{len(downloads)} downloads whole, 0 of {pinged.sent} pings lost"
    )


def _restart(appliance: Appliance, ending: str, downloads: list[Download], ping: Ping) -> tuple[float, float]:
    """From when to when it took, until all went on."""
    began = time.monotonic()
    getattr(appliance, ending)()
    appliance.start()
    _all_go_on(downloads, ping)
    return began, time.monotonic()


def _all_go_on(downloads: list[Download], ping: Ping) -> None:
    before = [download.received() for download in downloads]
    until(
        lambda: all(d.received() > b + 100_000 for d, b in zip(downloads, before, strict=True)), "the downloads go on"
    )
    ping.goes_on(20)
