"""Devices that may not connect for a while: cut off in time, and carrying again by themselves as soon as they may."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from tests.support.tunnel.devices import DeviceInUse
from tests.support.tunnel.ping import Ping
from tests.support.tunnel.waiting import standing_still, until
from tests.support.tunnel.wire import Speed
from tests.support.tunnel.world import WEB_IP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client

MB = 1_000_000
LIMIT = 20 * MB
UNREACHED = 1000 * MB
KEEPALIVE = "PersistentKeepalive = 25\n"
OTHER_PORT = "40001"


def test_a_quota_that_is_used_up_and_raised(
    start_appliance: Callable[..., Appliance], clients: list[Client], tmp_path: Path, show: Callable[[str], None]
) -> None:
    """Past the quota go less bytes than move in a second at the peak; the account's devices are held, and say until
    when.

    The limit is raised: a client that is quiet and has not moved carries because the exit begins; one that has moved
    meanwhile carries as it sends.
    """
    appliance = start_appliance(meter={"interval": "10s"}, **{"tiers.free": {"bytes_limit": LIMIT}})
    quiet, moving = (
        DeviceInUse(appliance, client, appliance.admin("device", "add", f"alice/{name}").replace(KEEPALIVE, ""), name)
        for client, name in zip(clients, ("quiet", "moving"), strict=True)
    )
    quiet.begins()
    moving.begins()
    until(lambda: len([s for s in quiet.sessions() if "last_handshake_at" in s]) == 2, "both are connected")
    download = moving.client.start_download(UNREACHED, "held")
    speed = Speed(download.received)
    until(lambda: not appliance.peers(), "both are cut off")
    peak = speed.peak()
    until(lambda: all("terminated_at" in s for s in quiet.sessions()), "both sessions have ended")
    sessions = quiet.sessions()
    assert {s["terminated_reason"] for s in sessions} == {"quota_exceeded"}
    used = sum(s["bytes_in"] + s["bytes_out"] for s in sessions)
    assert LIMIT <= used <= LIMIT + peak
    for device in (quiet, moving):
        shown = device.shown()
        assert (shown["state"], shown["held_reason"]) == ("held", "quota_exceeded")
        assert shown["held_until"] > sessions[0]["terminated_at"]

    moving.client.stop_transfers()
    moving.client.space.run("wg", "set", moving.client.interface, "listen-port", OTHER_PORT)
    ping = Ping(moving.client.space, WEB_IP, tmp_path / "ping")
    try:
        standing_still(lambda: sent_by(quiet.client))
        appliance.configure(**{"tiers.free": {"bytes_limit": 2 * LIMIT}})
        appliance.reload()
        raised = time.monotonic()
        until(quiet.handshake, "the exit has called the quiet client", every=0.05)
        called = time.monotonic() - raised
        assert quiet.only_answered()
        appliance.space.run("ping", "-c", "1", "-W", "10", address_of(quiet))
        show(f"quota raised: the client that is quiet and where it was is called after {called:.2f} s")
        ping.goes_on(1)
        show(f"the client that has moved and sends carries after {time.monotonic() - raised:.2f} s")
    finally:
        ping.kill()
    until(lambda: len([s for s in quiet.sessions() if "terminated_at" not in s]) == 2, "both have their next session")


def sent_by(client: Client) -> int:
    return int(client.space.run("wg", "show", client.interface, "transfer").stdout.split()[2])


def address_of(device: DeviceInUse) -> str:
    address: str = re.findall(r"^Address = ([0-9.]+)/32", device.config, re.MULTILINE)[0]
    return address
