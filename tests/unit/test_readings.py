"""What one sample of a peer adds to its session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from appliance.domain import bill
from appliance.domain.carrying import Span
from appliance.domain.charges import Amount
from appliance.domain.clock import Moment
from appliance.domain.entities import Baseline
from appliance.domain.pricing import Rates
from appliance.metering.handshakes import Handshakes, Shaken
from appliance.metering.readings import read_session
from appliance.network.wireguard.tunnel import PeerState
from tests.support.unit.a_session import A_SESSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.domain.accounting import Reading
    from appliance.domain.entities import Session

NOW = Moment(wall_ms=9_000_000, boot_ms=77_000, boot_id="boot")
LATER = Moment(wall_ms=9_400_000, boot_ms=477_000, boot_id="boot")  # 400 s after NOW
QUIET = PeerState(A_SESSION.public_key, frozenset(), rx_bytes=0, tx_bytes=0, last_handshake_ns=0)
BASELINE = Baseline("boot", 4, 10, 20)
STILL = structs.replace(QUIET, rx_bytes=10, tx_bytes=20)  # what the baseline says
# Counted at NOW, when its last handshake was 100 s ago.
ASLEEP_SOON = structs.replace(A_SESSION, carries_until_ms=NOW.boot_ms + 80_000)


def read(
    session: Session,
    sample: PeerState = STILL,
    shaken: Shaken | None = None,
    *,
    now: Moment = NOW,
    unmoved_until: Moment = NOW,
    ifindex: int = 4,
    baseline: Baseline | None = BASELINE,
) -> Sequence[Reading]:
    return read_session(session, sample, baseline, ifindex, now, unmoved_until, shaken)


def shaken(*spans: tuple[int, int]) -> Shaken:
    """Handshakes that let the tunnel carry from so many seconds after NOW until so many after it."""
    return Shaken("ses_1", 5, tuple(Span(NOW.boot_ms + a * 1000, NOW.boot_ms + b * 1000) for a, b in spans))


def seconds(readings: Sequence[Reading]) -> list[tuple[float, float]]:
    """From when until when each reading counts time: seconds of the wall clock after NOW."""
    return [((r.start_ms - NOW.wall_ms) / 1000, (r.end_ms - NOW.wall_ms) / 1000) for r in readings]


def in_one(readings: Sequence[Reading]) -> Reading:
    (reading,) = readings
    return reading


# Bytes and baselines ------------------------------------------------------------------------------


def test_a_peer_that_has_not_moved_costs_no_write() -> None:
    """A peer that has not moved costs no write: neither a new one nor one at its baseline, however late it is."""
    for now in (NOW, LATER):
        assert not read(A_SESSION, QUIET, baseline=None, now=now)
        assert not read(ASLEEP_SOON, now=now)


def test_bytes_without_a_handshake() -> None:
    """Bytes are billed; what is known of handshakes and quiet stays."""
    known = structs.replace(A_SESSION, handshake_seen_ns=5 * 10**9, last_handshake_at=5000)
    found = in_one(read(known, structs.replace(QUIET, rx_bytes=13, tx_bytes=20, last_handshake_ns=5 * 10**9)))
    assert (found.amount.bytes_in, found.amount.bytes_out) == (3, 0)
    assert (found.after.last_handshake_at, found.after.handshake_seen_ns) == (5000, 5 * 10**9)
    assert (found.after.quiet_since_ms, found.after.quiet_boot_id) == (A_SESSION.quiet_since_ms, "boot")
    assert found.after.carries_until_ms == A_SESSION.carries_until_ms


def test_any_change_of_the_handshake_time_is_a_handshake() -> None:
    """Any change of the handshake time is a handshake, one back in time too; quiet counts from now."""
    early, late = (NOW.wall_ms - 2000) * 10**6, (NOW.wall_ms - 1000) * 10**6
    for seen, shown in ((0, early), (early, late), (late, early)):
        known = structs.replace(A_SESSION, handshake_seen_ns=seen, quiet_boot_id="before")
        sample = structs.replace(QUIET, last_handshake_ns=shown)
        found = Handshakes(180_000).found(known, sample, NOW, NOW)
        after = in_one(read(known, sample, found, baseline=None)).after
        assert (after.last_handshake_at, after.handshake_seen_ns) == (shown // 10**6, shown)
        assert (after.quiet_since_ms, after.quiet_boot_id) == (77_000, "boot")


def test_a_vanished_handshake_keeps_the_last_one_known() -> None:
    """A peer that was added again shows no handshake: that is none, and the last one known stays."""
    known = structs.replace(A_SESSION, handshake_seen_ns=10**9, last_handshake_at=1000)
    moved = structs.replace(QUIET, rx_bytes=1)
    for sample in (QUIET, moved):
        assert Handshakes(180_000).found(known, sample, NOW, NOW) is None
    found = in_one(read(known, moved, baseline=None))
    assert (found.after.last_handshake_at, found.after.handshake_seen_ns) == (1000, 10**9)
    assert found.after.quiet_since_ms == A_SESSION.quiet_since_ms


def test_all_counters_of_a_new_interface_are_new() -> None:
    """Another ifindex: all the sample shows is new, and the baseline is of the new interface."""
    found = in_one(read(A_SESSION, structs.replace(QUIET, rx_bytes=12, tx_bytes=24), ifindex=5))
    assert (found.amount.bytes_in, found.amount.bytes_out, found.baseline) == (12, 24, Baseline("boot", 5, 12, 24))


# Time ---------------------------------------------------------------------------------------------


def test_time_ends_when_the_tunnel_carries_no_longer() -> None:
    """Bytes that are read later are counted whole, and are labelled as they moved; time ends where it ended."""
    sample = structs.replace(STILL, rx_bytes=17)
    quiet_until = Moment(NOW.wall_ms + 60_000, NOW.boot_ms + 60_000, "boot")
    found = in_one(read(ASLEEP_SOON, sample, now=LATER, unmoved_until=quiet_until))
    assert found.amount == Amount(80_000, 7, 0)
    assert seconds([found]) == [(0, 80)]
    assert (found.moved_ms, found.read_ms) == (quiet_until.wall_ms, LATER.wall_ms)
    assert (found.after.counted_until_ms, found.after.carries_until_ms) == (LATER.boot_ms, NOW.boot_ms + 80_000)
    assert not read(found.after, sample, baseline=found.baseline, now=LATER)


def test_bytes_of_a_tunnel_that_cannot_carry_take_no_time() -> None:
    """Handshakes that were not answered move bytes: they are counted, and no time is."""
    never = structs.replace(A_SESSION, carries_until_ms=0)
    found = in_one(read(never, structs.replace(STILL, rx_bytes=158), now=LATER))
    assert found.amount == Amount(0, 148, 0)
    assert found.after.carries_until_ms == 0


def test_a_handshake_goes_on_from_the_last_one() -> None:
    """A handshake while the tunnel carries makes it carry on: one reading, without a gap and counted once."""
    found = in_one(read(ASLEEP_SOON, shaken=shaken((60, 240)), now=Moment(9_070_000, 147_000, "boot")))
    assert seconds([found]) == [(0, 70)]
    assert found.after.carries_until_ms == NOW.boot_ms + 240_000


def test_a_handshake_after_a_gap_begins_anew() -> None:
    """What was before the gap is a reading of its own, the bytes go with the last one, and the gap is not counted."""
    first, last = read(ASLEEP_SOON, structs.replace(STILL, rx_bytes=17), shaken((390, 570)), now=LATER)
    assert seconds([first, last]) == [(0, 80), (390, 400)]
    assert (first.amount, last.amount) == (Amount(80_000), Amount(10_000, 7, 0))
    assert first.baseline is None
    assert (first.after.counted_until_ms, last.after.counted_until_ms) == (NOW.boot_ms + 80_000, LATER.boot_ms)
    assert (last.after.counted_ms, last.after.bytes_in) == (90_000, 7)
    assert last.after.carries_until_ms == NOW.boot_ms + 570_000


def test_two_handshakes_with_a_gap_before_they_are_stored() -> None:
    """Where looks have found several handshakes since the last commit, each span between gaps counts once."""
    found = read(ASLEEP_SOON, shaken=shaken((100, 103), (200, 203), (399, 402)), now=LATER)
    assert seconds(found) == [(0, 80), (100, 103), (200, 203), (399, 400)]
    assert sum(r.amount.time_ms for r in found) == found[-1].after.counted_ms == 87_000
    assert found[-1].after.carries_until_ms == NOW.boot_ms + 402_000


def test_a_handshake_that_carries_no_longer_when_it_is_read() -> None:
    """A span may be over before it is read: it is counted whole, and no more is."""
    found = read(structs.replace(A_SESSION, carries_until_ms=0), shaken=shaken((100, 280)), now=LATER)
    assert seconds(found) == [(100, 280)]
    assert found[0].after.counted_until_ms == LATER.boot_ms


def test_a_handshake_at_this_moment_takes_no_time_yet() -> None:
    """The first handshake is stored with the look that finds it, and the tunnel's time begins there."""
    found = in_one(read(structs.replace(A_SESSION, carries_until_ms=0), shaken=shaken((400, 580)), now=LATER))
    assert found.amount == Amount()
    assert (found.after.counted_until_ms, found.after.carries_until_ms) == (LATER.boot_ms, LATER.boot_ms + 180_000)


def test_nothing_before_a_reboot_is_counted_with_what_is_after_it() -> None:
    """Of another boot, what the tunnel could carry then says nothing: only handshakes of this boot count."""
    before = structs.replace(ASLEEP_SOON, counted_boot_id="before", carries_until_ms=2**53)
    found = in_one(read(before, structs.replace(QUIET, rx_bytes=3), now=LATER, unmoved_until=NOW))
    assert found.amount == Amount(0, 3, 0)
    assert (found.after.counted_boot_id, found.after.carries_until_ms) == ("boot", 0)
    again = in_one(read(before, QUIET, shaken((300, 480)), now=LATER))
    assert seconds([again]) == [(300, 400)]
    assert again.after.carries_until_ms == NOW.boot_ms + 480_000


def test_midnight_and_the_end_of_a_month() -> None:
    """Each span's time stands at the days on which the tunnel could carry, bytes at those on which they moved."""
    midnight = 1_790_812_800_000  # 2026-10-01T00:00:00Z
    start = Moment(midnight - 100_000, NOW.boot_ms, "boot")  # the tunnel carries for 80 s, until 20 s before midnight
    end = Moment(start.wall_ms + 400_000, start.boot_ms + 400_000, "boot")
    paid = structs.replace(ASLEEP_SOON, created_at=start.wall_ms, rates=Rates("eur", 60_000, 2**30))
    found = read(paid, structs.replace(STILL, rx_bytes=10 + 400), shaken((90, 270)), now=end, unmoved_until=start)
    days = [bill.days_of(reading) for reading in found]
    assert days[0] == [("2026-09-30", Amount(80_000))]
    assert days[1] == [("2026-09-30", Amount(10_000, 100, 0)), ("2026-10-01", Amount(170_000, 300, 0))]
    charges = [charge for r, parts in zip(found, days, strict=True) for charge in bill.charges_of(r, parts)]
    assert [(month, c.seconds, c.bytes_in, c.time_millicents, c.bytes_millicents) for month, c in charges] == [
        ("2026-09", 80, 0, 80_000, 0),
        ("2026-09", 10, 100, 10_000, 100),
        ("2026-10", 170, 300, 170_000, 300),
    ]


def test_bytes_that_moved_across_midnight_after_the_time() -> None:
    """Time that ended before midnight stays on its day, also where the bytes moved on both."""
    midnight = 1_790_812_800_000
    start = Moment(midnight - 100_000, NOW.boot_ms, "boot")
    end = Moment(start.wall_ms + 200_000, start.boot_ms + 200_000, "boot")
    found = in_one(read(ASLEEP_SOON, structs.replace(STILL, tx_bytes=20 + 200), now=end, unmoved_until=start))
    assert bill.days_of(found) == [("2026-09-30", Amount(80_000, 0, 100)), ("2026-10-01", Amount(0, 0, 100))]
