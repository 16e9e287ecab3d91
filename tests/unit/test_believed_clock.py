"""Which wall time is believed: the host's, or what the boot clock says it should be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain import clock_steps
from appliance.domain.believed_clock import BelievedClock
from appliance.domain.clock import Moment
from tests.support.virtual_clock import VirtualClock

MINUTE, HOUR, DAY = 60, 3600, 86_400
YEAR = 365 * DAY
KNOWN = Moment(wall_ms=1_790_000_000_000, boot_ms=500_000, boot_id="one")


def read(boot_id: str, boot_s: int, ahead_s: int) -> Moment:
    """A reading `ahead_s` seconds ahead of what KNOWN and, within its boot, the boot clock say."""
    since_ms = boot_s * 1000 - KNOWN.boot_ms if boot_id == "one" else 0
    return Moment(KNOWN.wall_ms + since_ms + ahead_s * 1000, boot_s * 1000, boot_id)


IN_DOUBT = {
    "in step": ("one", 0, False),
    "a second": ("one", 1, False),
    "four minutes back": ("one", -4 * MINUTE, False),
    "six minutes": ("one", 6 * MINUTE, True),
    "six minutes back": ("one", -6 * MINUTE, True),
    "a day": ("one", DAY, True),
    "days back": ("one", -3 * DAY, True),
    "a year": ("one", YEAR, True),
    "to 1970": ("one", -KNOWN.wall_ms // 1000, True),
    "off over a weekend": ("two", 3 * DAY, False),
    "off for two weeks": ("two", 14 * DAY, True),
    "a year after a reboot": ("two", YEAR, True),
    "a little early after a reboot": ("two", -MINUTE, False),
    "before the heartbeat": ("two", -HOUR, True),
    "no battery": ("two", -KNOWN.wall_ms // 1000, True),
}


@pytest.mark.parametrize(("boot_id", "ahead_s", "doubted"), IN_DOUBT.values(), ids=IN_DOUBT)
def test_what_contradicts_the_boot_clock(boot_id: str, ahead_s: int, *, doubted: bool) -> None:
    """A step beyond minutes; after a reboot a clock behind the heartbeat, or further ahead than hosts are off."""
    found = clock_steps.contradiction_ms(KNOWN, read(boot_id, 900, ahead_s))
    assert found == (ahead_s * 1000 if doubted else 0)


def test_what_is_expected() -> None:
    """Within a boot the wall clock goes as CLOCK_BOOTTIME does; after a reboot it is at least what it was."""
    assert clock_steps.expected(KNOWN, read("one", 900, YEAR)) == read("one", 900, 0)
    assert clock_steps.expected(KNOWN, read("two", 40, -YEAR)).wall_ms == KNOWN.wall_ms


def on_a_machine_up_for(seconds: int, clock: VirtualClock) -> BelievedClock:
    """With a store that comes from another one, of this moment."""
    known = clock.now()
    clock.reboot(seconds=0)
    clock.boot_ms, clock.kept = seconds * 1000, False
    return BelievedClock(clock, known)


@pytest.mark.parametrize("up_s", [MINUTE, 16 * HOUR, 400 * DAY])
@pytest.mark.parametrize("old_s", [0, 10 * MINUTE, 6 * DAY])
def test_a_store_from_another_machine(up_s: int, old_s: int) -> None:
    """However long that has been up, and the store was on its way: a clock that says so is believed."""
    clock = VirtualClock()
    believed = on_a_machine_up_for(up_s, clock)
    clock.wall_ms += old_s * 1000
    assert (believed.now(), believed.ahead_ms) == (clock.now(), 0)


@pytest.mark.parametrize("up_s", [MINUTE, 16 * HOUR, 400 * DAY])
@pytest.mark.parametrize("step", [-DAY, -YEAR, 3 * YEAR])
def test_a_store_from_another_machine_whose_clock_is_wrong(up_s: int, step: int) -> None:
    """Time goes on from the store's last moment, for as long as it is seen to: that uptime is not of the store."""
    clock = VirtualClock()
    right_ms = clock.wall_ms
    believed = on_a_machine_up_for(up_s, clock)
    clock.step(step)
    assert believed.now().wall_ms == right_ms
    clock.advance(100)
    assert believed.now().wall_ms == right_ms + 100_000
    assert believed.ahead_ms == step * 1000
    believed.accept(clock.now())
    assert (believed.now(), believed.ahead_ms) == (clock.now(), 0)


SAID = {YEAR: "365 d ahead of", -3 * DAY: "3 d behind", 5 * HOUR: "5 h ahead of", -6 * MINUTE: "6 min behind"}


@pytest.mark.parametrize(("ahead_s", "words"), SAID.items())
def test_how_far_off_in_words(ahead_s: int, words: str) -> None:
    """In the unit that suits."""
    for odd_ms in (0, 1, -1):
        assert clock_steps.in_words(ahead_s * 1000 + odd_ms) == words


HANDSHAKES = {
    "since then": (5_000, 5_000),
    "just before that look": (990, 990),
    "a moment in the future": (9_500, 9_000),
    "a year ahead": (YEAR * 1000, 9_000),
    "of another time": (-3 * DAY * 1000, 9_000),
}


@pytest.mark.parametrize(("told_ms", "expected_ms"), HANDSHAKES.values(), ids=HANDSHAKES)
def test_when_a_handshake_was(told_ms: int, expected_ms: int) -> None:
    """As the kernel says, never in the future; by another clock's time: when it was noticed."""
    assert clock_steps.handshake_at(told_ms, start_ms=1_000, now_ms=9_000) == expected_ms


def believing(clock: VirtualClock) -> BelievedClock:
    believed = BelievedClock(clock, clock.now())
    clock.kept = False
    return believed


@pytest.mark.parametrize("step", [YEAR, DAY, -3 * DAY, -YEAR])
def test_a_step_is_not_followed_before_the_clock_is_synchronised(step: int) -> None:
    """Time goes on by the boot clock; then the wall clock is followed, whichever way it went."""
    clock = VirtualClock()
    believed = believing(clock)
    before = clock.wall_ms
    clock.step(step)
    clock.advance(100)
    assert believed.now().wall_ms == before + 100_000
    assert believed.ahead_ms == step * 1000
    clock.kept = True
    assert believed.now() == clock.now()
    assert believed.ahead_ms == 0


def test_small_corrections_are_followed() -> None:
    """Without a time service too, and each counts from the one before."""
    clock = VirtualClock()
    believed = believing(clock)
    for step in (2, -1.5, 240, -240, 240, 240):
        clock.step(step)
        assert believed.now() == clock.now()


def test_a_clock_that_is_put_back_is_believed_again() -> None:
    """By hand too: it then says what is believed."""
    clock = VirtualClock()
    believed = believing(clock)
    for step in (YEAR, -YEAR):
        clock.step(step)
        believed.now()
    assert (believed.now(), believed.ahead_ms) == (clock.now(), 0)


def test_an_acceptance_is_of_one_step() -> None:
    """The step that was accepted is followed; the next one is not, nor a step to the same time later on."""
    clock = VirtualClock()
    believed = believing(clock)
    clock.step(YEAR)
    believed.now()
    believed.accept(clock.now())
    assert believed.now() == clock.now()
    for step in (-YEAR, DAY):
        clock.step(step)
        assert believed.now() != clock.now()
        clock.kept = True
        assert believed.now() == clock.now()
        clock.kept = False
    clock.step(YEAR - DAY)
    assert believed.now() != clock.now()


def test_an_acceptance_of_another_boot_is_not_of_this_one() -> None:
    """What was right before a reboot says nothing of the clock after it."""
    clock = VirtualClock()
    believed = believing(clock)
    clock.step(YEAR)
    right = clock.now()
    clock.reboot()
    believed.accept(right)
    assert believed.now() != clock.now()


def test_the_first_start_has_nothing_to_go_by() -> None:
    """It takes the wall clock as it stands."""
    clock = VirtualClock()
    clock.kept = False
    believed = BelievedClock(clock, None)
    assert believed.now() == clock.now()
    clock.step(DAY)
    assert believed.now() != clock.now()


def test_after_a_reboot_a_clock_set_right_by_hand_is_followed() -> None:
    """One that began in 1970 and is set to any time since the heartbeat; the heartbeat is the least it can be."""
    clock = VirtualClock()
    believed = believing(clock)
    known = believed.now()
    clock.reboot(seconds=2 * HOUR)
    right = clock.wall_ms
    clock.wall_ms = 0
    assert believed.now().wall_ms == known.wall_ms
    for passed in (1, 30 * DAY):
        clock.advance(passed)
        right += passed * 1000
    assert believed.now().wall_ms == known.wall_ms + (30 * DAY + 1) * 1000
    clock.wall_ms = right
    assert believed.now() == clock.now()


class PutRight(VirtualClock):
    """A time service puts it right between the first reading and the question of whether it is synchronised."""

    def synchronised(self) -> bool:
        self.wall_ms = self.right_ms
        return True

    right_ms = 0


def test_a_clock_put_right_meanwhile_is_not_believed_as_it_was() -> None:
    """The reading from before that is not taken for a synchronised one."""
    clock = PutRight()
    believed = BelievedClock(clock, clock.now())
    clock.right_ms = clock.wall_ms
    clock.step(YEAR)
    assert believed.now().wall_ms == clock.right_ms
    assert (believed.now(), believed.ahead_ms) == (clock.now(), 0)


HAPPENINGS = st.lists(st.tuples(st.sampled_from(("advance", "step", "kept")), st.integers(-2 * YEAR, 2 * YEAR)))


@given(happenings=HAPPENINGS)
def test_believed_time_goes_with_the_boot_clock_or_is_the_hosts(happenings: list[tuple[str, int]]) -> None:
    """Whatever happens: a reading is the host's own, or the one before with the time since by the boot clock."""
    clock = VirtualClock()
    believed = BelievedClock(clock, clock.now())
    before = believed.now()
    for what, amount in happenings:
        if what == "kept":
            clock.kept = amount > 0
        else:
            getattr(clock, what)(abs(amount) if what == "advance" else amount)
        now = believed.now()
        gone_on = before.wall_ms + clock.boot_ms - before.boot_ms
        assert now == clock.now() or (now.wall_ms == gone_on and not clock.kept)
        assert now.boot_ms == clock.boot_ms
        assert believed.ahead_ms == clock.wall_ms - now.wall_ms
        before = now


def test_small_steps_do_not_add_up() -> None:
    """A thousand steps of less than five minutes move the clock by an hour at most while nothing synchronises it."""
    clock = VirtualClock()
    believed = believing(clock)
    before, passed = believed.now().wall_ms, 0
    for _ in range(1000):
        clock.step(290)
        clock.advance(1)
        passed += 1000
        believed.now()
    assert 0 < believed.now().wall_ms - before - passed <= HOUR * 1000
    assert believed.ahead_ms
    clock.kept = True
    assert (believed.now(), believed.ahead_ms) == (clock.now(), 0)


def test_an_acceptance_that_is_no_longer_true_is_dropped() -> None:
    """The clock was accepted a year ahead, and put right since: what is believed stays, and is the host's time."""
    clock = VirtualClock()
    believed = believing(clock)
    clock.step(YEAR)
    right = clock.now()
    clock.step(-YEAR)
    believed.accept(right)
    assert (believed.now(), believed.ahead_ms) == (clock.now(), 0)
