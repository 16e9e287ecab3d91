"""What a tick does, counted: it grows with what has changed, and not with what there is."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from appliance.domain.tiers import Tier
from appliance.metering import meter
from tests.support.api.exit_under_test import ExitUnderTest, new_key, on_exit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIVE = 60
UNLIMITED = "[tiers.free]\nmax_live_sessions = 0\nseconds_limit = 0\n"


@asynccontextmanager
async def statements(exit_: ExitUnderTest) -> AsyncIterator[Counter[str]]:
    """Those of the writer, by their first word."""
    seen: Counter[str] = Counter()
    await exit_.store._writer.set_trace_callback(lambda statement: seen.update([statement.split()[0]]))
    try:
        yield seen
    finally:
        await exit_.store._writer.set_trace_callback(None)


async def live(exit_: ExitUnderTest) -> list[bytes]:
    ada = await exit_.client(tier=Tier.FREE)
    pairs = [new_key() for _ in range(LIVE)]
    for text, _ in pairs:
        await ada.open(client_public_key=text)
    await exit_.tick(after=1)
    return [raw for _, raw in pairs]


@pytest.mark.parametrize("moved", [0, 1, LIVE])
@on_exit(UNLIMITED)
async def test_a_tick_is_one_transaction(exit_: ExitUnderTest, moved: int) -> None:
    """However many peers moved: one transaction, and a statement for each that did (four, where it is billed)."""
    keys = await live(exit_)
    for raw in keys[:moved]:
        exit_.tunnel.add_traffic(raw, rx=1000)
    async with statements(exit_) as seen:
        await exit_.tick(after=1)
    account, heartbeat = min(moved, 1), 1
    assert seen == Counter(BEGIN=1, COMMIT=1, UPDATE=moved + account + heartbeat)


@on_exit(UNLIMITED)
async def test_looks_at_what_moved(exit_: ExitUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose peer has not moved is not looked at, by the meter or by whoever ends sessions."""
    keys = await live(exit_)
    exit_.tunnel.add_traffic(keys[7], rx=1000)
    looked: list[bytes] = []
    read = meter.read_session
    monkeypatch.setattr(meter, "read_session", lambda *a: looked.append(a[1].public_key) or read(*a))
    await exit_.tick(after=1)
    assert looked == [keys[7]]


@on_exit(UNLIMITED)
async def test_restored_peers_are_not_kept_by_key(exit_: ExitUnderTest) -> None:
    """When all peers are new since the last dump, the meter knows that of all at once: it counts each, once."""
    keys = await live(exit_)
    exit_.tunnel.vanish()
    await exit_.tick(after=1)
    for raw in keys:
        exit_.tunnel.add_traffic(raw, rx=1000)
    seen = await exit_.parts.meter.observe()
    assert not exit_.parts.meter._moved
    assert sorted(reading.after.public_key for reading in seen.count.readings) == sorted(keys)
    await exit_.tick(after=1)
    exit_.tunnel.add_traffic(keys[0], rx=1)
    await exit_.tick(after=1)
    assert sum(session.bytes_in for session in exit_.parts.live) == 1000 * LIVE + 1
