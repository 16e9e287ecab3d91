"""A session's seconds are those in which its tunnel can carry: from a handshake until 180 s after it."""

from __future__ import annotations

import asyncio

import pytest

from appliance.domain.tiers import Tier
from tests.support.api.carried import HOUR, PRICE, REJECT_AFTER_MS, TERMS, be_away, billed, look, use
from tests.support.api.exit_under_test import ExitUnderTest, new_key, on_exit

LIMITED = f'{TERMS}[tiers.free]\nidle_timeout = 0\nseconds_limit = "10m"\n'


@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_never_used(exit_: ExitUnderTest) -> None:
    """A file that was never used has no seconds and no cost, however long its session is live."""
    ada = await exit_.client()
    session = (await ada.open())["id"]
    for _ in range(5):
        await exit_.tick(after=HOUR)
        assert await billed(ada, session) == [0]
    final = (await ada.delete(session)).json()
    assert (final["seconds"], final["cost_time_millicents"]) == (0, 0)
    assert await billed(ada, session) == [0]
    assert exit_.rows("SELECT counted_ms FROM sessions") == [(0,)]


@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_attempts_that_come_to_nothing(exit_: ExitUnderTest) -> None:
    """Bytes of handshakes that come to nothing are counted, and take no time."""
    ada, (text, raw) = await exit_.client(), new_key()
    session = (await ada.open(client_public_key=text))["id"]
    for _ in range(10):
        exit_.tunnel.add_traffic(raw, rx=148, tx=92)
        await exit_.tick(after=5)
    status = await ada.status(session)
    assert (status["bytes_in"], status["bytes_out"]) == (1480, 920)
    assert await billed(ada, session) == [0]


@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_used_and_closed(exit_: ExitUnderTest) -> None:
    """A session that is used for 25 s and closed has 25, whatever passed before its first handshake."""
    ada = await exit_.client()
    session = (await ada.open())["id"]
    await exit_.tick(after=300)
    await exit_.shake(exit_.key_of(session))
    await use(ada, session, 25)
    assert await billed(ada, session) == [25]
    final = (await ada.delete(session)).json()
    assert (final["seconds"], final["cost_time_millicents"]) == (25, 25 * PRICE // 60)
    await exit_.tick(after=HOUR)
    assert await billed(ada, session) == [25]


@pytest.mark.parametrize("again_at", [None, 1, 20, 25])
@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_switched_off(exit_: ExitUnderTest, again_at: int | None) -> None:
    """A client that is used for 25 s and then switched off has between 25 and 205: 180 s after its last handshake."""
    ada = await exit_.client()
    session = (await ada.connect())["id"]
    if again_at is not None:
        await look(exit_, again_at)
        await exit_.shake(exit_.key_of(session))
    for hours in range(3):
        assert await billed(ada, session) == [180 + (again_at or 0) if hours else (again_at or 0)]
        await look(exit_, HOUR, every=60)
    assert exit_.rows("SELECT counted_ms FROM peers") == [((180 + (again_at or 0)) * 1000,)]
    assert (await ada.delete(session)).json()["seconds"] == 180 + (again_at or 0)


@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_a_laptop_that_is_shut(exit_: ExitUnderTest) -> None:
    """The hour in which a laptop is asleep is not billed, but for what is left of its last handshake's 180 s; when it
    wakes, its time goes on, in one session."""
    ada = await exit_.client()
    session = (await ada.connect())["id"]
    await use(ada, session, 600)  # the last handshake is after 480 s
    await look(exit_, HOUR, every=60)
    assert await billed(ada, session) == [660]
    await exit_.shake(exit_.key_of(session))
    assert await billed(ada, session) == [660]
    await use(ada, session, 200)
    assert await billed(ada, session) == [860]
    assert exit_.state_of(session) == ("live", None)
    assert (await ada.delete(session)).json()["seconds"] == 860


@pytest.mark.parametrize("read_first", [False, True])
@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_a_replacement_goes_on_with_the_tunnel(exit_: ExitUnderTest, *, read_first: bool) -> None:
    """A replacement has the same tunnel: it carries on without a handshake, as long as it would have, and no second is
    counted for both."""
    ada, (text, raw) = await exit_.client(), new_key()
    old = (await ada.connect(client_public_key=text))["id"]
    await look(exit_, 50)
    exit_.tunnel.add_traffic(raw, rx=1000, handshake_ns=exit_.clock.wall_ms * 1_000_000)
    if read_first:
        await exit_.parts.ticker.tick(whole=False)
    exit_.clock.advance(10)
    new = (await ada.open(client_public_key=text))["id"]
    assert await billed(ada, old, new) == [60, 0]
    await look(exit_, HOUR, every=60)
    assert await billed(ada, old, new) == [60, 170]
    await exit_.shake(raw)
    await look(exit_, 7)
    assert await billed(ada, old, new) == [60, 177]
    assert (await ada.delete(new)).json()["seconds"] == 177


@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_a_replacement_of_one_that_sleeps(exit_: ExitUnderTest) -> None:
    """Where the tunnel of the session that is replaced carries no longer, that of its replacement does not either."""
    ada, (text, raw) = await exit_.client(), new_key()
    old = (await ada.connect(client_public_key=text))["id"]
    await look(exit_, HOUR, every=60)
    new = (await ada.open(client_public_key=text))["id"]
    await look(exit_, 100)
    assert await billed(ada, old, new) == [180, 0]
    await exit_.shake(raw)
    await exit_.tick(after=5)
    assert await billed(ada, old, new) == [180, 5]


@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_asked_for_again_with_its_key(exit_: ExitUnderTest) -> None:
    """A session of the same key after one that was closed has a new peer: no time passes before it shakes hands."""
    ada, (text, raw) = await exit_.client(), new_key()
    old = (await ada.connect(client_public_key=text))["id"]
    await look(exit_, 20)
    closing, opening = await asyncio.gather(ada.delete(old), ada.post(client_public_key=text))
    assert (closing.status_code, opening.status_code) == (200, 201)
    new = opening.json()["id"]
    await exit_.tick(after=50)
    known = exit_.tunnel.peers[raw].last_handshake_ns
    if known:  # the request came before the other was closed, and has the tunnel
        assert await billed(ada, old, new) == [20, 50]
        return
    assert await billed(ada, old, new) == [20, 0]
    await exit_.shake(raw)
    await exit_.tick(after=7)
    assert await billed(ada, old, new) == [20, 7]


@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_a_peer_that_was_removed_and_put_back(exit_: ExitUnderTest) -> None:
    """A stranger removes the peer, and it is put back: it has no keys, and no time passes before its next handshake."""
    ada, (text, raw) = await exit_.client(), new_key()
    session = (await ada.connect(client_public_key=text))["id"]
    await exit_.tick(after=30)
    del exit_.tunnel.interface.peers[raw]
    await exit_.tick(after=5)
    assert raw in exit_.tunnel.peers
    await look(exit_, 100)
    assert await billed(ada, session) == [30]
    await exit_.shake(raw)
    await look(exit_, 20)
    assert await billed(ada, session) == [50]


@on_exit(LIMITED, reject_after_ms=REJECT_AFTER_MS)
async def test_a_session_that_sleeps_uses_up_no_window(exit_: ExitUnderTest) -> None:
    """Of two sessions one sleeps: the account's ten minutes end when both together have carried for so long."""
    bob = await exit_.client(tier=Tier.FREE)
    used, asleep = (await bob.connect())["id"], (await bob.connect())["id"]
    assert await seconds_to_the_end(exit_, used) == 600 - 180
    assert (await bob.status(asleep))["terminated_reason"] == "quota_exceeded"
    assert [(await bob.status(each))["seconds"] for each in (used, asleep)] == [420, 180]


@on_exit(LIMITED, reject_after_ms=REJECT_AFTER_MS)
async def test_a_session_that_wakes_ends_its_account_in_time(exit_: ExitUnderTest) -> None:
    """A session that carries again uses up the window from its handshake on: the end comes sooner, to the moment."""
    bob = await exit_.client(tier=Tier.FREE)
    used, woken = (await bob.connect())["id"], (await bob.connect())["id"]
    assert await seconds_to_the_end(exit_, used, {300: woken}) == 360  # 360 + 180 + 60
    assert [(await bob.status(each))["seconds"] for each in (used, woken)] == [360, 240]
    assert (await bob.post()).status_code == 402


@on_exit(LIMITED, reject_after_ms=REJECT_AFTER_MS)
async def test_asleep_at_the_limit(exit_: ExitUnderTest) -> None:
    """While all of an account's sessions sleep, none is ended for its time, and the window has as much left as then."""
    bob = await exit_.client(tier=Tier.FREE)
    session = (await bob.connect())["id"]
    for _ in range(3):
        await look(exit_, HOUR, every=60)
        assert exit_.state_of(session) == ("live", None)
        assert (await bob.get("/v1/usage")).json()["session_seconds"] == 180
    await exit_.shake(exit_.key_of(session))
    assert await seconds_to_the_end(exit_, session) == 600 - 180


async def seconds_to_the_end(exit_: ExitUnderTest, used: str, others: dict[int, str] | None = None) -> int:
    """Looks as planned, while one client shakes hands every two minutes and others at some seconds, until all sessions
    have ended: after so many seconds, and not much later than they should."""
    begun = exit_.clock.boot_ms
    shakes = {at * 1000: [used] for at in range(120, 3600, 120)}
    for at, other in (others or {}).items():
        shakes.setdefault(at * 1000, []).append(other)
    while exit_.tunnel.peers:
        passed = exit_.clock.boot_ms - begun
        next_ms = min(at for at in shakes if at > passed)
        planned_ms = int(exit_.parts.ticker._seconds_to_next() * 1000)
        exit_.clock.advance(min(planned_ms, next_ms - passed) / 1000)
        passed = exit_.clock.boot_ms - begun
        if passed in shakes:
            await exit_.shake(*map(exit_.key_of, shakes[passed]))
        else:
            await exit_.parts.ticker.tick(whole=False)
        await exit_.settled()
    passed = exit_.clock.boot_ms - begun
    assert passed % 1000 <= 20, passed
    return passed // 1000


@on_exit(TERMS, reject_after_ms=REJECT_AFTER_MS)
async def test_all_that_show_seconds_agree(exit_: ExitUnderTest) -> None:
    """Sessions sleep, wake, are replaced, end and survive a restart: GET, usage, the invoice and its days agree."""
    ada, (text, raw) = await exit_.client(), new_key()
    one = (await ada.connect(client_public_key=text))["id"]
    never = (await ada.open())["id"]
    await look(exit_, 70)
    two = (await ada.connect())["id"]
    assert await billed(ada, one, never, two) == [70, 0, 0]
    exit_.clock.advance(35)  # nothing is read: time alone
    assert await billed(ada, one, never, two) == [105, 0, 35]
    await look(exit_, 100)
    assert await billed(ada, one, never, two) == [180, 0, 135]
    await exit_.shake(raw)
    await be_away(exit_, 30, raw)
    assert await billed(ada, one, never, two) == [210, 0, 165]
    await ada.delete(two)
    again = (await ada.open(client_public_key=text))["id"]
    exit_.clock.advance(15)
    assert await billed(ada, one, never, two, again) == [210, 0, 165, 15]
    await look(exit_, HOUR, every=60)
    assert await billed(ada, one, never, two, again) == [210, 0, 165, 150]
