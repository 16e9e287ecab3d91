"""What is shown and billed of sessions whose tunnels carry from a handshake until 180 s after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.invoice import differences
from appliance.metering import invoices
from appliance.metering.usage import Quotas
from appliance.store.known_time import believed_clock
from appliance.store.queries.invoices import rates

if TYPE_CHECKING:
    from tests.support.api.exit_under_test import Client, ExitUnderTest

REJECT_AFTER_MS = 180_000
HOUR = 3600
PRICE = 1001
TERMS = f"""
[pricing]
currency = "eur"
millicents_per_minute = {PRICE}
[tiers.paid]
idle_timeout = 0
seconds_window = "20d"
"""
MONTH = "2026-09"


async def billed(client: Client, *session_ids: str) -> list[int]:
    """The seconds of the account's sessions, all of which are given: GET, its cost, both kinds of usage, the invoice
    and its days say the same."""
    exit_ = client.exit_
    shown = [await client.status(session_id) for session_id in session_ids]
    seconds = [status["seconds"] for status in shown]
    assert [status["cost_time_millicents"] for status in shown] == [each * PRICE // 60 for each in seconds]
    clock = await believed_clock(exit_.store, exit_.clock)
    used = (await client.get("/v1/usage")).json()["session_seconds"]
    by_command = await Quotas(exit_.store, None, exit_.parts.services.terms, clock).of(client.account)
    assert used == by_command.seconds_used == sum(seconds) == shown[0]["quota_seconds_used"]
    async with exit_.store.snapshot() as db:
        invoice = await invoices.read(db, client.account, MONTH, clock)
        days = await invoices.days(db, invoice)
        assert differences(MONTH, invoice.lines, days, await rates(db, session_ids)) == []
    of = {line.session_id: line.charge for line in invoice.lines}
    assert [of[session_id].seconds for session_id in session_ids] == seconds
    assert [of[session_id].time_millicents for session_id in session_ids] == [each * PRICE // 60 for each in seconds]
    return seconds


async def look(exit_: ExitUnderTest, after: float, every: float = 10) -> None:
    """So much time passes, with looks as a running server makes them, of which some are whole ticks."""
    end = exit_.clock.boot_ms + int(after * 1000)
    while exit_.clock.boot_ms < end:
        exit_.clock.advance(min(every, (end - exit_.clock.boot_ms) / 1000))
        await exit_.parts.ticker.tick(whole=False)
    await exit_.settled()


async def use(client: Client, session_id: str, seconds: int) -> None:
    """Its client goes on for so long: it shakes hands every two minutes while it moves something."""
    exit_ = client.exit_
    key = exit_.key_of(session_id)
    for begun in range(0, seconds, 120):
        if begun:
            await exit_.shake(key)
        exit_.tunnel.add_traffic(key, rx=1000)
        await look(exit_, min(120, seconds - begun))


async def be_away(exit_: ExitUnderTest, seconds: float, key: bytes, shakes_at: float | None = None) -> None:
    """The process is not there for so long; at an instant of it the client shakes hands, and moves a kilobyte."""
    await exit_.stop()
    exit_.tunnel = type(exit_.tunnel)(exit_.tunnel.interface)
    if shakes_at is not None:
        exit_.clock.advance(shakes_at)
        exit_.tunnel.add_traffic(key, rx=1000, handshake_ns=exit_.clock.wall_ms * 1_000_000)
    exit_.clock.advance(seconds - (shakes_at or 0))
    await exit_.start()
    await exit_.tick()
