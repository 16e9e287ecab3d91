"""What is billed while the server is killed and the interface lost under traffic: never more than moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.sessions import client_key, figures, settled_figures
from tests.support.tunnel.waiting import until
from tests.support.tunnel.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.tunnel.appliance_process import Appliance, Transfer
    from tests.support.tunnel.client import Client
    from tests.support.tunnel.world import World

LONG = 400_000_000  # minutes at a trickle
BILLED_BETWEEN = 200_000


def grown(shown: Transfer, before: Transfer) -> Transfer | None:
    """`shown`, once it is more than `before` by what cannot be handshakes alone."""
    more = shown.received > before.received + BILLED_BETWEEN and shown.sent > before.sent + BILLED_BETWEEN
    return shown if more else None


def at_most(shown: Transfer, true: Transfer) -> bool:
    return shown.received <= true.received and shown.sent <= true.sent


@pytest.mark.under_kernel
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.long)])
def test_kills_in_mid_transfer_bill_what_moved(
    start_appliance: Callable[..., Appliance], client: Client, tmp_path: Path, show: Callable[[str], None], kills: int
) -> None:
    """kill -9 in mid-transfer, again and again: billed never passes `wg show` nor goes down, and equals it at last."""
    appliance = start_appliance(meter={"interval": "10s"})
    token = appliance.token()
    session = appliance.open(token)
    key = client_key(session["wg_config"])
    client.wg_quick(session["wg_config"])
    client.address_seen()
    download = client.start_download(LONG, "killed", slow_until="never")
    upload = client.start_upload(tmp_path / "up", LONG, bytes_per_s=200_000)
    shown = figures(appliance.session(session["id"], token))
    for _ in range(kills):
        received = download.received()
        until(lambda: download.received() > received, "the download goes on")  # noqa: B023 (called at once)
        appliance.kill()
        down = appliance.transfer(key)
        appliance.start()
        before, shown = shown, figures(appliance.session(session["id"], token))
        assert at_most(shown, appliance.transfer(key))
        assert at_most(before, shown)
        assert at_most(down, shown), "what moved before the start is counted by the start"
    assert download.running()
    assert upload.running()
    got = download.received()
    client.stop_transfers()
    client.down()
    billed = settled_figures(appliance, session["id"], token, key)
    assert billed.sent >= got
    show(f"{kills} times kill -9: billed {billed}, wg show {appliance.transfer(key)}, the client received {got}")


@pytest.mark.parametrize("losses", [1, pytest.param(2, marks=pytest.mark.long)])
def test_an_interface_lost_in_mid_transfer_bills_what_moved(
    world: World,
    start_appliance: Callable[..., Appliance],
    client: Client,
    tmp_path: Path,
    show: Callable[[str], None],
    losses: int,
) -> None:
    """The interface is deleted in mid-transfer: billed is at most what was on the wire, and at least what had been
    billed before plus all of the new interface."""
    wire = Wire(world.exit)
    appliance = start_appliance()
    token = appliance.token()
    session = appliance.open(token)
    key = client_key(session["wg_config"])
    client.wg_quick(session["wg_config"])
    client.address_seen()
    download = client.start_download(LONG, "lost", slow_until="never")
    upload = client.start_upload(tmp_path / "up", LONG, bytes_per_s=200_000)

    before = figures(appliance.session(session["id"], token))
    for _ in range(losses):
        before = until(
            lambda: grown(figures(appliance.session(session["id"], token)), before),  # noqa: B023 (called at once)
            "both directions are billed",
        )
        appliance.space.run("ip", "link", "del", appliance.interface)
        until(lambda: key in appliance.peers(), "the peer is back in the tunnel")
        assert at_most(figures(appliance.session(session["id"], token)), wire.transfer())
    # The client finds out by itself: without an answer it shakes hands anew after 15 s.
    received = download.received()
    until(lambda: download.received() > received, "the download goes on over the new interface")
    assert upload.running()
    client.stop_transfers()
    client.down()

    def whole() -> bool:
        shown, real = figures(appliance.session(session["id"], token)), appliance.transfer(key)
        return shown.sent >= before.sent + real.sent and shown.received >= before.received + real.received

    until(whole, "what was billed before and all of the new interface is billed")
    billed, true = figures(appliance.session(session["id"], token)), wire.transfer()
    assert at_most(billed, true)
    show(f"the interface deleted {losses} times: billed {billed}, on the wire {true}")
