"""Usage windows, quotas and prices, as a client meets them."""

from __future__ import annotations

from dataclasses import replace

from appliance.domain.clock import rfc3339
from appliance.domain.tiers import Tier
from tests.support.api.exit_under_test import ExitUnderTest, on_exit

SMALL = '[tiers.free]\nbytes_limit = 1000\nbytes_window = "1h"\nseconds_limit = "60s"\nseconds_window = "2h"\n'
PRICED = "[pricing]\nmillicents_per_minute = 1000\nmillicents_per_gib = 5000\n"


async def free(exit_: ExitUnderTest) -> None:
    await exit_.admin("UPDATE accounts SET tier = 'free'")
    await exit_.tick()


@on_exit(SMALL)
async def test_used_up_bytes_end_all_sessions_until_the_window_ends(exit_: ExitUnderTest) -> None:
    """At the limit all sessions of the account end and POST answers 402, its body whole, until the window ends."""
    ada = await exit_.client()
    await free(exit_)
    one, other = await ada.connect(), await ada.connect()
    opened_at = exit_.clock.wall_ms
    exit_.tunnel.add_traffic(exit_.key_of(one["id"]), rx=400, tx=599)
    await exit_.tick(after=10)
    assert (await ada.status(one["id"]))["quota_bytes_used"] == 999
    exit_.tunnel.add_traffic(exit_.key_of(other["id"]), tx=1)
    await exit_.tick(after=10)
    for opened in (one, other):
        assert (await ada.status(opened["id"]))["terminated_reason"] == "quota_exceeded"
    assert not exit_.tunnel.peers
    answer = await ada.post()
    assert answer.status_code == 402
    body = answer.json()
    assert body.pop("hint")
    resets_at = body["bytes_window_resets_at"]
    assert body == {
        "error": "quota exceeded",
        "code": "quota_exceeded",
        "tier": "free",
        "bytes_used": 1000,
        "bytes_limit": 1000,
        "session_seconds": 40,
        "session_limit": 60,
        "bytes_window_resets_at": resets_at,
        "seconds_window_resets_at": rfc3339(opened_at + 2 * 3_600_000),
        "resets_at": resets_at,
    }
    await exit_.tick(after=3_700)
    assert (await ada.post()).status_code == 201


@on_exit(SMALL)
async def test_two_sessions_use_up_seconds_twice_as_fast(exit_: ExitUnderTest) -> None:
    """Two sessions use up a window twice as fast; an hour of wall clock that was only set counts for nothing."""
    ada = await exit_.client()
    await free(exit_)
    one, _ = await ada.connect(), await ada.connect()
    exit_.clock.wall_ms += 3_600_000
    await exit_.tick(after=29)
    assert (await ada.get("/v1/usage")).json()["session_seconds"] == 58
    assert "terminated_at" not in await ada.status(one["id"])
    await exit_.tick(after=1)
    assert (await ada.status(one["id"]))["terminated_reason"] == "quota_exceeded"
    assert (await ada.post()).status_code == 402


@on_exit(SMALL)
async def test_with_no_window_open_nothing_is_used(exit_: ExitUnderTest) -> None:
    """With no window open: nothing used, and each window would end its length from now."""
    ada = await exit_.client()
    await free(exit_)
    assert (await ada.get("/v1/usage")).json() == {
        "tier": "free",
        "bytes_used": 0,
        "bytes_limit": 1000,
        "session_seconds": 0,
        "session_seconds_limit": 60,
        "max_session_seconds": 30 * 86_400,
        "bytes_window_resets_at": rfc3339(exit_.clock.wall_ms + 3_600_000),
        "seconds_window_resets_at": rfc3339(exit_.clock.wall_ms + 7_200_000),
    }


@on_exit(SMALL)
async def test_another_tier_holds_at_once(exit_: ExitUnderTest) -> None:
    """An admin's change of tier ends the running sessions whose account is then over its limit."""
    ada = await exit_.client()
    opened = await ada.open()
    exit_.tunnel.add_traffic(exit_.key_of(opened["id"]), tx=5000)
    await exit_.tick(after=1)
    assert "terminated_at" not in await ada.status(opened["id"])
    await exit_.admin("UPDATE accounts SET tier = 'free'")
    await exit_.tick()
    assert (await ada.status(opened["id"]))["terminated_reason"] == "quota_exceeded"


@on_exit(PRICED)
async def test_prices_follow_from_time_and_bytes(exit_: ExitUnderTest) -> None:
    """21 minutes on paid are 21,000 millicents for time, and 3 GiB at 5,000 are 15,000 for bytes."""
    ada = await exit_.client()
    opened = await ada.connect()
    exit_.tunnel.add_traffic(exit_.key_of(opened["id"]), rx=2**30, tx=2 * 2**30, handshake_ns=1)
    await exit_.tick(after=1)
    for _ in range(21 * 60 - 1):
        exit_.clock.advance(1)
    status = await ada.status(opened["id"])
    assert (status["cost_time_millicents"], status["cost_bytes_millicents"]) == (21_000, 15_000)
    assert status["cost_currency"] == "eur"


@on_exit(PRICED)
async def test_only_paid_has_prices(exit_: ExitUnderTest) -> None:
    """On other tiers the cost fields are left out."""
    ada = await exit_.client()
    await free(exit_)
    status = await ada.status((await ada.open())["id"])
    assert not [name for name in status if name.startswith("cost_")]


@on_exit(PRICED)
async def test_a_session_across_a_month_stands_on_both(exit_: ExitUnderTest) -> None:
    """A session across midnight and a month stands on both months; the lines add up to its totals."""
    ada = await exit_.client()
    first_of_october = 1_790_812_800_000
    exit_.clock.wall_ms = first_of_october - 30_000
    opened = await ada.connect()
    exit_.tunnel.add_traffic(exit_.key_of(opened["id"]), rx=10**9, tx=1, handshake_ns=1)
    await exit_.tick(after=90)
    final = (await ada.delete(opened["id"])).json()
    lines = exit_.rows(
        "SELECT month, seconds, bytes_in + bytes_out, time_millicents, bytes_millicents FROM invoice_lines ORDER BY 1"
    )
    assert [line[:2] for line in lines] == [("2026-09", 30), ("2026-10", 60)]
    assert sum(line[2] for line in lines) == 10**9 + 1
    assert sum(line[3] for line in lines) == final["cost_time_millicents"] == 1500
    assert sum(line[4] for line in lines) == final["cost_bytes_millicents"]
    days = exit_.rows("SELECT sum(counted_ms), sum(bytes_in + bytes_out) FROM usage_days")
    assert days == [(90_000, 10**9 + 1)]


@on_exit(PRICED)
async def test_new_limits_count_at_once_and_new_prices_for_new_sessions(exit_: ExitUnderTest) -> None:
    """New limits count for sessions that run; a new price for those that begin from now on."""
    ada, bob = await exit_.client("ada"), await exit_.client("bob", tier=Tier.FREE)
    old, limited = await ada.connect(), await bob.connect()
    await exit_.tick(after=60)
    changed = replace(exit_.settings.tiers["free"], seconds_limit=60)
    pricing = replace(exit_.settings.pricing, millicents_per_minute=9)  # type: ignore[type-var]  # it has one
    exit_.parts.services.terms.take_over(
        replace(exit_.settings, tiers={**exit_.settings.tiers, "free": changed}, pricing=pricing)
    )
    assert (await bob.get("/v1/usage")).json()["session_seconds_limit"] == 60
    await exit_.tick()
    assert (await bob.status(limited["id"]))["terminated_reason"] == "quota_exceeded"
    new = await ada.connect()
    exit_.clock.advance(60)
    costs = [(await ada.status(opened["id"]))["cost_time_millicents"] for opened in (old, new)]
    assert costs == [2 * exit_.settings.pricing.millicents_per_minute, 9]  # type: ignore[union-attr]  # it has one
