"""Who runs out is cut off in time: by bytes at full speed, by seconds, by an operator's command."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.tunnel.sessions import client_key
from tests.support.tunnel.waiting import until
from tests.support.tunnel.wire import Speed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client

MB = 1_000_000
GIB = 2**30
LIMIT = 50 * MB
UNREACHED = 1000 * MB
# The suite's own: figures are read as often as it asks for them.
ROOM = {"requests_per_minute": 6000}


def ended(appliance: Appliance, session_id: str, token: str) -> dict[str, Any]:
    return until(
        lambda: next((s for s in [appliance.session(session_id, token)] if "terminated_at" in s), {}),
        f"{session_id} has ended",
    )


def test_a_bytes_quota_is_passed_by_less_than_a_second_at_full_speed(
    start_appliance: Callable[..., Appliance], clients: list[Client], show: Callable[[str], None]
) -> None:
    """A 50 MB quota, the default interval: past it go less bytes than move in a second at the peak; all of the
    account's sessions end, and POST says 402."""
    appliance = start_appliance(meter={"interval": "10s"}, **{"tiers.free": ROOM | {"bytes_limit": LIMIT}})
    token = appliance.token()
    fast, other = appliance.open(token), appliance.open(token)
    for client, session in zip(clients, (fast, other), strict=True):
        client.wg_quick(session["wg_config"])
        client.address_seen()
    download = clients[0].start_download(UNREACHED, "fast")
    speed = Speed(download.received)
    final, others = (ended(appliance, session["id"], token) for session in (fast, other))
    peak = speed.peak()
    assert download.running(), "the download waits for what does not come"

    used = sum(s[figure] for s in (final, others) for figure in ("bytes_in", "bytes_out"))
    assert LIMIT <= used <= LIMIT + peak
    assert (final["terminated_reason"], others["terminated_reason"]) == ("quota_exceeded", "quota_exceeded")
    assert final["terminated_at"] == others["terminated_at"]
    assert appliance.peers() == set()
    received = download.received()
    refused = appliance.api("POST", "/v1/sessions", {"region": "test"}, token)
    assert refused.status == 402
    assert (refused.body["bytes_used"], refused.body["bytes_limit"]) == (used, LIMIT)
    assert download.received() == received
    past = used - LIMIT
    show(f"50 MB quota: {past / MB:.1f} MB past it at {peak / MB:.0f} MB/s = {past / peak:.2f} s at the peak rate")


@pytest.mark.parametrize("seconds", [4, pytest.param(20, marks=pytest.mark.long)])
def test_a_time_quota_ends_the_session_within_a_second(
    start_appliance: Callable[..., Appliance], client: Client, show: Callable[[str], None], seconds: int
) -> None:
    """Those seconds are billed, from the look that finds the handshake, and the peer is gone after them (on a host that
    has nothing else to do, within two seconds)."""
    appliance = start_appliance(meter={"interval": "10s"}, **{"tiers.free": ROOM | {"seconds_limit": seconds}})
    token = appliance.token()
    session = appliance.open(token)
    key = client_key(session["wg_config"])
    asked = time.monotonic()
    client.wg_quick(session["wg_config"])
    client.address_seen()
    connected = time.monotonic()
    assert key in appliance.peers()
    until(lambda: key not in appliance.peers(), "the peer is gone")
    gone = time.monotonic()
    final = ended(appliance, session["id"], token)
    assert final["terminated_reason"] == "quota_exceeded"
    assert final["quota_seconds_used"] == seconds
    assert gone - asked >= seconds
    show(f"{seconds} s quota: the peer was gone {gone - connected:.2f} s after the client had an answer through it")


def test_a_tier_set_by_an_operator_holds_at_once(
    start_appliance: Callable[..., Appliance], client: Client, show: Callable[[str], None]
) -> None:
    """`account set --tier free` on a session that is past the new limit ends it (before it returns, on a host that has
    nothing else to do)."""
    appliance = start_appliance(meter={"interval": "10s"}, **{"tiers.free": ROOM | {"bytes_limit": 2 * MB}})
    appliance.admin("account", "create", "alice", "--tier", "paid")
    token = appliance.token()
    session = appliance.open(token)
    client.wg_quick(session["wg_config"])
    client.address_seen()
    client.download(4 * MB, "paid")
    assert "terminated_at" not in appliance.session(session["id"], token)
    appliance.admin("account", "set", "alice", "--tier", "free")
    returned = time.monotonic()
    until(lambda: not appliance.peers(), "the peer is gone")
    gone = time.monotonic()
    assert ended(appliance, session["id"], token)["terminated_reason"] == "quota_exceeded"
    show(f"account set --tier: the peer was seen gone {gone - returned:.2f} s after the command returned")


def test_a_limit_set_by_an_operator_holds_after_a_reload(
    start_appliance: Callable[..., Appliance], client: Client, show: Callable[[str], None]
) -> None:
    """A limit changed in the configuration ends who is past it at once after SIGHUP; a mistake changes nothing."""
    appliance = start_appliance(meter={"interval": "10s"})
    token = appliance.token()
    session = appliance.open(token)
    client.wg_quick(session["wg_config"])
    client.address_seen()
    until(lambda: appliance.session(session["id"], token)["quota_seconds_used"] >= 2, "two seconds have passed")
    appliance.configure(**{"tiers.free": {"seconds_limit": -1}})
    appliance.reload()
    until(lambda: "tiers.free.seconds_limit" in appliance.log(), "the log names the mistake")
    assert appliance.peers()
    appliance.configure(**{"tiers.free": {"seconds_limit": 2}}, node={"region": "elsewhere"})
    reloaded = time.monotonic()
    appliance.reload()
    until(lambda: not appliance.peers(), "the peer is gone")
    gone = time.monotonic()
    assert ended(appliance, session["id"], token)["terminated_reason"] == "quota_exceeded"
    assert "needs a restart: node.region" in appliance.log()
    show(f"a limit changed and SIGHUP: the peer was seen gone {gone - reloaded:.2f} s after it")


def test_a_price_is_the_same_in_session_and_invoice(
    start_appliance: Callable[..., Appliance], client: Client, show: Callable[[str], None]
) -> None:
    """A paid session's cost follows from its figures, and the invoice says the same in every format."""
    appliance = start_appliance(pricing={"millicents_per_minute": 60_000, "millicents_per_gib": 1_000_000})
    appliance.admin("account", "create", "alice", "--tier", "paid")
    token = appliance.token()
    session = appliance.open(token)
    client.wg_quick(session["wg_config"])
    client.address_seen()
    client.download(5 * MB, "paid")
    client.down()
    until(
        lambda: appliance.session(session["id"], token)["cost_time_millicents"] >= 2000, "the live cost is that of 2 s"
    )
    final = appliance.close(session["id"], token)
    moved = final["bytes_in"] + final["bytes_out"]
    month = final["terminated_at"][:7]
    books = json.loads(appliance.admin("invoice", "alice", "--month", month, "--format", "json", "--verify"))
    (line,) = books["lines"]
    assert moved > 5 * MB
    assert (line["bytes_in"], line["bytes_out"], line["bytes"]) == (final["bytes_in"], final["bytes_out"], moved)
    assert line["bytes_millicents"] == final["cost_bytes_millicents"] == moved * 1_000_000 // GIB
    assert line["time_millicents"] == final["cost_time_millicents"] == line["seconds"] * 60_000 // 60
    csv = appliance.admin("invoice", "alice", "--month", month, "--format", "csv").splitlines()
    assert csv[1].split(",")[6:9] == [str(line[name]) for name in ("bytes", "time_millicents", "bytes_millicents")]
    assert session["id"] in appliance.admin("invoice", "alice", "--month", month)
    show(f"{moved} bytes in {line['seconds']} s: {line['bytes_millicents']} + {line['time_millicents']} millicents")
