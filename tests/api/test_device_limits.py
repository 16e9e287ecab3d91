"""An account has no more than its share, whatever requests and handshakes come at once, and no less."""

from __future__ import annotations

import asyncio

from appliance.domain.tiers import Tier
from tests.support.api.device_owner import Owner, key_of
from tests.support.api.exit_under_test import ExitUnderTest, on_exit

ONE_AT_A_TIME = "[tiers.free]\nidle_timeout = 0\nmax_live_sessions = 1\n"


@on_exit(ONE_AT_A_TIME)
async def test_a_request_and_a_handshake_in_one_batch(exit_: ExitUnderTest) -> None:
    """Together they have the one session that their account may have."""
    ada = await Owner.of(exit_, tier=Tier.FREE)
    made = await ada.add()
    exit_.tunnel.add_traffic(key_of(exit_, made["id"]), rx=148, tx=92, handshake_ns=exit_.clock.wall_ms * 1_000_000)
    tick = asyncio.create_task(exit_.parts.ticker.tick(whole=False))
    opened = asyncio.create_task(ada.client.post())
    await tick
    assert (await opened).status_code == 201
    await exit_.tick()
    assert exit_.rows("SELECT state, reason, bytes_in FROM sessions ORDER BY device_id IS NULL") == [
        ("terminated", "live_session_limit", 148),
        ("live", None, 0),
    ]
