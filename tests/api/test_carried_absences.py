"""What counts of a session's time while the process, or the host, is away: what handshakes prove."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.api.carried import HOUR, REJECT_AFTER_MS, TERMS, be_away, billed, look
from tests.support.api.exit_under_test import Client, ExitUnderTest, new_key, on_exit

AWAY = 10 * HOUR
SHORT_WINDOWS = TERMS.replace('"20d"', '"1m"')
REPEATED = partial(pytest.param, marks=pytest.mark.long)


async def connected(exit_: ExitUnderTest) -> tuple[Client, str, bytes]:
    """A client that has just shaken hands, and the store knows it."""
    ada, (text, raw) = await exit_.client(), new_key()
    session = (await ada.connect(client_public_key=text))["id"]
    await exit_.tick()
    return ada, session, raw


@pytest.mark.parametrize(("used_s", "seconds"), [(120, 300), (180, 360), (HOUR, 360), (None, 180)])
@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_ten_hours_away(exit_: ExitUnderTest, used_s: int | None, seconds: int) -> None:
    """Of ten hours away, 180 s after the last handshake known before count, and 180 s after the last one found, no
    further than now; the bytes count whole."""
    ada, session, raw = await connected(exit_)
    await be_away(exit_, AWAY, raw, None if used_s is None else AWAY - used_s)
    assert await billed(ada, session) == [seconds]
    assert (await ada.status(session))["bytes_in"] == (0 if used_s is None else 1000)
    await look(exit_, HOUR, every=60)
    assert await billed(ada, session) == [180 if used_s is None else 360]
    await exit_.shake(raw)
    await exit_.tick(after=5)
    assert await billed(ada, session) == [185 if used_s is None else 365]


@pytest.mark.parametrize(("away", "shakes_at"), [(1, None), (179, None), (180, None), (180, 1), (180, 120), (180, 180)])
@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_a_short_absence_counts_whole(exit_: ExitUnderTest, away: int, shakes_at: int | None) -> None:
    """An absence of no more than 180 s counts whole, whether or not the client shook hands meanwhile."""
    ada, session, raw = await connected(exit_)
    await be_away(exit_, away, raw, shakes_at)
    assert await billed(ada, session) == [away]
    await look(exit_, HOUR, every=60)
    assert await billed(ada, session) == [180 + (shakes_at or 0)]


@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_handshakes_that_overlap_count_once(exit_: ExitUnderTest) -> None:
    """Found handshakes go on from what was known: where the spans overlap they count once, where they do not, twice."""
    ada, session, raw = await connected(exit_)
    await be_away(exit_, 250, raw, 150)
    assert await billed(ada, session) == [250]
    await be_away(exit_, 500, raw, 300)  # it was known to carry for 80 s more
    assert await billed(ada, session) == [250 + 80 + 180]


@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_the_first_handshake_while_away(exit_: ExitUnderTest) -> None:
    """A session that is first used while the process is away counts from that handshake, and not from its creation."""
    ada, (text, raw) = await exit_.client(), new_key()
    session = (await ada.open(client_public_key=text))["id"]
    await exit_.tick()
    await be_away(exit_, HOUR, raw, HOUR - 100)
    assert await billed(ada, session) == [100]


@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_a_restart_that_finds_no_peers(exit_: ExitUnderTest) -> None:
    """Where the interface has lost its peers meanwhile, time counts up to the last heartbeat, then from a handshake."""
    ada, session, raw = await connected(exit_)
    await exit_.tick(after=20)
    exit_.tunnel.interface.peers.clear()
    await be_away(exit_, 60, raw)
    await look(exit_, 100)
    assert await billed(ada, session) == [20]
    await exit_.shake(raw)
    await exit_.tick(after=5)
    assert await billed(ada, session) == [25]


@pytest.mark.parametrize("shakes", [False, True])
@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_a_reboot(exit_: ExitUnderTest, *, shakes: bool) -> None:
    """Time counts up to the last heartbeat before a reboot, and none passes until the next handshake after it."""
    ada, session, raw = await connected(exit_)
    await exit_.tick(after=50)
    exit_.clock.advance(5)
    exit_.clock.reboot(300)
    exit_.tunnel.vanish()
    await exit_.restart()
    await look(exit_, 100)
    assert await billed(ada, session) == [50]
    if shakes:
        await exit_.shake(raw)
        await look(exit_, 20)
        assert await billed(ada, session) == [70]
    await look(exit_, HOUR, every=60)
    assert await billed(ada, session) == [50 + (180 if shakes else 0)]


@pytest.mark.parametrize("kept", [True, False], ids=["synchronised", "doubted"])
@pytest.mark.parametrize("set_by", [-3 * HOUR, *map(REPEATED, (-60, 60, 30 * HOUR)), 3 * HOUR])
@pytest.mark.parametrize("shakes_at", [100, *map(REPEATED, (200, 5 * HOUR)), AWAY - 120])
@pytest.mark.parametrize("set_first", [True, False], ids=["set before", "set after"])
@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_the_clock_is_set_while_away(
    exit_: ExitUnderTest, *, kept: bool, set_by: int, shakes_at: int, set_first: bool
) -> None:
    """Whether the wall clock was set before or after the handshake, and is believed or not: never more counts than the
    tunnel could carry, never less than the handshake before proves, and the bytes count whole."""
    ada, session, raw = await connected(exit_)
    exit_.clock.kept = kept
    await exit_.stop()
    exit_.tunnel = type(exit_.tunnel)(exit_.tunnel.interface)
    if set_first:
        exit_.clock.step(set_by)
    exit_.clock.advance(shakes_at)
    exit_.tunnel.add_traffic(raw, rx=1000, handshake_ns=exit_.clock.wall_ms * 1_000_000)
    exit_.clock.advance(AWAY - shakes_at)
    if not set_first:
        exit_.clock.step(set_by)
    await exit_.start()
    await exit_.tick()
    seconds = await seconds_of(ada, session)
    could = min(180, shakes_at) + min(180, AWAY - shakes_at)
    assert 180 <= seconds <= could, (seconds, could)
    assert (await ada.status(session))["bytes_in"] == 1000
    await look(exit_, HOUR, every=60)
    assert 180 <= await seconds_of(ada, session) <= min(180, shakes_at) + 180


async def seconds_of(client: Client, session_id: str) -> int:
    """As shown, which is what the account's window has."""
    status = await client.status(session_id)
    assert status["quota_seconds_used"] == status["seconds"]
    seconds: int = status["seconds"]
    return seconds


@pytest.mark.parametrize("set_by", [0, 2])
@on_exit(f'{SHORT_WINDOWS}[meter]\ninterval = "10m"\n', reject_after_ms=3000)
async def test_windows_are_in_the_order_of_what_was_used(exit_: ExitUnderTest, *, set_by: int) -> None:
    """Several spans of two sessions are counted at once, in the order in which they were, also where the clock was set:
    the last one opens the window that is shown."""
    ada = await exit_.client()
    one, other = [exit_.key_of((await ada.connect())["id"]) for _ in range(2)]
    await exit_.tick(after=HOUR)
    for shakes in (one, other, None, None, one):
        exit_.clock.advance(15)
        await (exit_.parts.ticker.tick(whole=False) if shakes is None else exit_.shake(shakes))
    exit_.clock.advance(5)
    exit_.clock.step(set_by)
    await exit_.tick()
    assert (await ada.get("/v1/usage")).json()["session_seconds"] == 3
    assert exit_.rows("SELECT sum(counted_ms) FROM peers") == [(15_000,)]
