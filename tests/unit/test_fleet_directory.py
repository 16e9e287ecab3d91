"""Which exits of a fleet are there, and which take sessions, by their beats."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from appliance.fleet.presence import beats
from appliance.fleet.presence.beats import MeanRate, encoded, parse
from appliance.fleet.presence.directory import DEAD_MS, Directory, Presence
from tests.support.fleet.members import AMS, FRA, HERE, a_beat, a_member, at
from tests.support.virtual_clock import AFTERNOON

MEMBERS = (a_member(HERE, "here", "eu"), a_member(AMS, "ams1", "eu"))
OWN = a_beat(HERE, name="here", inst="own")
TWO_MACHINES = f"two machines are {AMS}"


def directory() -> Directory:
    return Directory(MEMBERS[0], lambda: MEMBERS)


def of_ams(there: Directory, ms: int = 0, *, connected: bool = True) -> Presence:
    """How AMS stands, `ms` after AFTERNOON."""
    return {each.member.id: each for each in there.presences(OWN, at(ms), connected=connected)}[AMS]


def heard(**changes: Any) -> Presence:
    """How AMS stands after one beat."""
    there = directory()
    there.hear(a_beat(AMS, **changes), at(0))
    return of_ams(there)


# Dead or alive ---------------------------------------------------------------------------------------


def test_three_missed_beats_make_an_exit_dead() -> None:
    """It is dead 3.5 s after its last beat, not before, and alive with the next one."""
    there = directory()
    assert of_ams(there).fault == "not heard yet"
    there.hear(a_beat(AMS), at(0))
    assert of_ams(there, DEAD_MS - 1).fault is None
    dead = of_ams(there, DEAD_MS)
    assert (dead.alive, dead.silent_ms, dead.fault) == (False, DEAD_MS, "silent for 3 s")
    there.hear(a_beat(AMS, n=2), at(9000))
    assert of_ams(there, 9000).fault is None


@given(st.integers(1, 60))
def test_a_burst_of_late_beats_is_one_sign_of_life(many: int) -> None:
    """Beats that were held up and come together keep an exit alive for no longer than one does."""
    there = directory()
    for n in range(1, many + 1):
        there.hear(a_beat(AMS, n=n, t=AFTERNOON + n * 1000), at(100_000))
    assert of_ams(there, 100_000 + DEAD_MS - 1).alive
    assert not of_ams(there, 100_000 + DEAD_MS).alive


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_an_earlier_beat_never_takes_the_place_of_a_later_one(numbers: list[int]) -> None:
    """Whatever order, loss and doubling, the newest beat counts, and an old one is no sign of life."""
    there, newest_at = directory(), 0
    for i, n in enumerate(numbers):
        there.hear(a_beat(AMS, n=n, t=AFTERNOON + n), at(i))
        newest_at = i if n > max(numbers[:i], default=0) else newest_at
    found = of_ams(there, len(numbers))
    assert found.beat is not None
    assert found.beat.n == max(numbers)
    assert found.silent_ms == len(numbers) - newest_at
    assert there.dropped["late"] == len(numbers) - len({*_rises(numbers)})


def _rises(numbers: list[int]) -> list[int]:
    return [n for i, n in enumerate(numbers) if n > max(numbers[:i], default=0)]


# One exit, two machines ------------------------------------------------------------------------------

arrivals = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4000)), max_size=60)


@given(arrivals, st.lists(st.integers(1, 3), min_size=6, max_size=6))
def test_a_restart_is_not_another_machine(order: list[tuple[int, int]], lasts: list[int]) -> None:
    """Processes that follow one another are one machine, however late and out of order their beats come."""
    there, since = directory(), [sum(lasts[:i]) * 1000 for i in range(6)]
    for ms, (process, into) in enumerate(order):
        t = AFTERNOON + since[process] + into % (lasts[process] * 1000)
        there.hear(a_beat(AMS, inst=f"p{process}", since=AFTERNOON + since[process], n=into + 1, t=t), at(ms))
        assert of_ams(there, ms).fault != TWO_MACHINES


@given(st.integers(1, 3600), st.lists(st.booleans(), min_size=2, max_size=40))
def test_a_copied_machine_is_told(apart_s: int, turns: list[bool]) -> None:
    """An older process that is heard, after a newer one has begun, is a second machine; by whatever turns they come."""
    there, began = directory(), {True: AFTERNOON - apart_s * 1000, False: AFTERNOON}
    for n, older in enumerate(turns, 1):
        inst = "older" if older else "newer"
        there.hear(a_beat(AMS, inst=inst, since=began[older], n=n, t=AFTERNOON + n * 500), at(n * 500))
        recent = set(turns[max(0, n - 20) : n])
        assert (of_ams(there, n * 500).fault == TWO_MACHINES) == (len(recent) == 2)


def test_it_is_one_machine_again_when_the_other_is_silent() -> None:
    """Once one of the two has been stopped, the other one takes sessions again by itself."""
    there = directory()
    there.hear(a_beat(AMS, inst="A", since=AFTERNOON - 9000, t=AFTERNOON + 50), at(50))
    for n in range(1, 12):
        there.hear(a_beat(AMS, inst="B", since=AFTERNOON, n=n, t=AFTERNOON + n * 1000), at(n * 1000))
        assert (of_ams(there, n * 1000).fault is None) == (n > 10)


def test_late_beats_of_an_ended_process_are_no_word_of_the_one_that_runs() -> None:
    """A beat that was sent before the process began which is heard now is late, whenever it comes."""
    there = directory()
    there.hear(a_beat(AMS, inst="old", since=AFTERNOON - 9000, n=7, t=AFTERNOON - 3000), at(-3000))
    there.hear(a_beat(AMS, inst="new", since=AFTERNOON, n=1, t=AFTERNOON), at(0))
    there.hear(a_beat(AMS, inst="old", since=AFTERNOON - 9000, n=8, t=AFTERNOON - 2000, drained=True), at(500))
    found = of_ams(there, 600)
    assert (found.fault, found.silent_ms) == (None, 600)
    assert there.dropped == {"late": 1}


def test_a_host_that_starts_with_a_clock_that_was_set_back_is_heard() -> None:
    """A host without a battery begins in 1970: once its last process is dead, the next one is heard all the same."""
    there = directory()
    there.hear(a_beat(AMS, inst="old"), at(0))
    there.hear(a_beat(AMS, inst="new", since=1000, t=1000), at(DEAD_MS))
    found = of_ams(there, DEAD_MS)
    assert found.beat is not None
    assert (found.beat.inst, found.alive) == ("new", True)


def test_the_exit_itself_knows_of_its_double() -> None:
    """What has this exit's id and another process that has run since this one began is another machine. While it is
    there, this one knows of no other exit, and works as a single one."""
    there = directory()
    there.sent(OWN, at(0))
    there.hear(OWN, at(10))
    there.hear(a_beat(AMS), at(10))
    there.hear(replace(OWN, inst="earlier", since=0, t=OWN.since), at(10))
    assert there.own_fault(at(20)) is None
    there.hear(replace(OWN, inst="other", since=0, n=2), at(30))
    assert there.own_fault(at(40)) == f"two machines are {HERE}"
    assert [each.fault for each in there.presences(OWN, at(40), connected=True)] == [there.own_fault(at(40)), None]
    assert there.own_fault(at(10_030)) is None


def test_a_machine_copied_as_it_ran_knows_of_its_double() -> None:
    """A copy with the memory of this process is told by beats that this one has not sent; its own may come twice."""
    one, other = directory(), directory()
    for n in range(2, 6):
        sent = {there: replace(OWN, n=n, t=OWN.t + n * 1000 + late) for there, late in ((one, 0), (other, 400))}
        for there, beat in sent.items():
            there.sent(beat, at(n * 1000))
            there.hear(beat, at(n * 1000))
            there.hear(beat, at(n * 1000))
            assert (there.own_fault(at(n * 1000)) is None) == (n == 2)
        for there in (one, other):
            for beat in sent.values():
                there.hear(beat, at(n * 1000 + 500))
            assert there.own_fault(at(n * 1000 + 500)) == f"two machines are {HERE}"


def test_an_exit_whose_beats_do_not_come_back_is_alone() -> None:
    """A connection by which nothing comes, or nothing goes, is none, 3.5 s after the first beat that is missed."""
    there = directory()
    for n in range(2, 12):
        now = n * 1000
        there.sent(replace(OWN, n=n, t=OWN.t + n), at(now))
        if n < 5:
            there.hear(replace(OWN, n=n, t=OWN.t + n), at(now + 100))
        assert (there.apart(at(now), connected=True) is None) == (now < 5000 + DEAD_MS)
        assert there.own_fault(at(now)) is None
    assert there.refusal(at(11_000)) == "what it sends does not come back from the hub"
    assert of_ams(there, 11_000).asked is False
    there.disconnected()
    there.sent(replace(OWN, n=12, t=OWN.t + 12), at(12_000))
    assert there.apart(at(12_000 + DEAD_MS - 1), connected=True) is None
    there.hear(replace(OWN, n=12, t=OWN.t + 12), at(15_600))
    assert there.apart(at(15_600), connected=True) is None


def test_own_beats_from_long_ago_are_no_double() -> None:
    """What comes back after minutes is not known by heart any more, and is not taken for another machine's."""
    there = directory()
    for n in range(1, 500):
        there.sent(replace(OWN, n=n, t=OWN.t + n), at(n))
    there.hear(replace(OWN, n=1, t=OWN.t + 1), at(0))
    assert there.own_fault(at(0)) is None


# What else speaks against it -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"ready": False}, "not ready"),
        ({"drained": True}, "drained"),
        ({"room": 0}, "no address is free"),
        ({"region": "us"}, "says that it is in us, and joined as one in eu"),
        ({"p": (1, 7)}, None),
        ({"ready": False, "drained": True}, "not ready"),
        ({"p": (2, 3), "version": "9"}, "runs 9, which this exit cannot talk to: upgrade the older of the two"),
        ({"t": AFTERNOON + 299_999}, None),
        ({"t": AFTERNOON + 300_000}, "its clock differs from this host's by 300 s"),
        ({"t": AFTERNOON - 300_000}, "its clock differs from this host's by 300 s"),
    ],
)
def test_only_what_works_takes_sessions(changes: dict[str, Any], fault: str | None) -> None:
    """An exit takes sessions that is ready, not drained, has room, speaks our protocol, and whose clock is near.

    Only one that does not speak it is not asked for the sessions that it has, either.
    """
    found = heard(**changes)
    assert found.alive
    assert found.fault == fault
    assert found.asked == (changes.get("p") != (2, 3))


@given(st.integers(-10_000, 10_000), st.lists(st.integers(0, 20_000), min_size=1, max_size=30))
def test_the_beat_that_came_fastest_tells_the_clocks_apart(ahead: int, delays: list[int]) -> None:
    """How long beats were on their way does not count as a difference of clocks, if one of the last eight was fast."""
    there = directory()
    for n, delay in enumerate(delays, 1):
        there.hear(a_beat(AMS, n=n, t=AFTERNOON + n * 1000 + ahead - delay), at(n * 1000))
    assert of_ams(there, len(delays) * 1000).skew_ms == ahead - min(delays[-8:])


def test_who_left_is_not_there() -> None:
    """Of a host that has left, or is no member, nothing is known, whatever it says; what has left is alone itself."""
    members = [*MEMBERS, a_member(FRA, "fra1", "eu")]
    there = Directory(MEMBERS[0], lambda: members)
    there.hear(a_beat(AMS), at(0))
    there.hear(a_beat(FRA), at(0))
    members[2] = a_member(FRA, "fra1", "eu", left_at=AFTERNOON)
    there.hear(a_beat(FRA, n=2), at(0))
    there.hear(a_beat("nod_" + "9" * 24), at(0))
    assert [each.member.id for each in there.presences(OWN, at(0), connected=True)] == [AMS, HERE]
    assert there.dropped == {"stranger": 2}
    members[0] = a_member(HERE, "here", "eu", left_at=AFTERNOON)
    assert of_ams(there).fault == there.apart(at(0), connected=True) == "here was taken out of the fleet"
    members.clear()
    assert [each.member.id for each in there.presences(OWN, at(0), connected=True)] == [HERE]


def test_what_is_cut_off_knows_itself_alone() -> None:
    """Cut off from all hubs, this exit alone takes sessions; as a single exit, also when it has no address free."""
    there, full = directory(), replace(OWN, room=0)
    there.hear(a_beat(AMS), at(0))
    for connected, fault in ((True, "no address is free"), (False, None)):
        stand = there.presences(full, at(1), connected=connected)
        assert [each.fault for each in stand] == [None if connected else "cut off", fault]


@pytest.mark.parametrize(("changes", "fault"), [({"ready": False}, "not ready"), ({"drained": True}, "drained")])
def test_this_exit_takes_no_sessions_of_its_own_while_it_is_out_of_work(changes: dict[str, Any], fault: str) -> None:
    """Drained or not ready, it is no candidate for itself either, connected or not; it is there all the same."""
    for connected in (True, False):
        own = directory().presences(replace(OWN, **changes), at(0), connected=connected)[1]
        assert (own.member.id, own.fault, own.alive, own.asked) == (HERE, fault, True, True)


def test_three_timeouts_in_a_row_make_an_exit_inactive_for_ten_seconds() -> None:
    """Then it may be asked again; if it does not answer that either, it is inactive for ten more."""
    there = directory()

    def works(ms: int) -> bool:
        there.hear(a_beat(AMS, n=ms + 1, t=AFTERNOON + ms), at(ms))
        return of_ams(there, ms).fault is None

    for ms in (0, 1):
        there.unanswered(AMS, at(ms))
    there.answered(AMS)
    for ms in (2, 3):
        there.unanswered(AMS, at(ms))
        assert works(ms)
    there.unanswered(AMS, at(4))
    assert not works(10_003)
    assert works(10_004)
    there.unanswered(AMS, at(10_005))
    assert not works(20_004)
    there.answered(AMS)
    assert works(20_005)


# Records ---------------------------------------------------------------------------------------------


def test_a_beat_is_read_as_it_was_written() -> None:
    """A beat comes back whole; fields of a newer version are passed over."""
    beat = a_beat(AMS, gen=3, acc_rev=17)
    assert parse(f"wga.hb.{AMS}", encoded(beat)) == beat
    assert parse(f"wga.hb.{AMS}", encoded(beat)[:-1] + b',"newer":{"a":[1]}}') == beat


@pytest.mark.parametrize(
    ("subject", "data"),
    [
        (f"wga.hb.{FRA}", encoded(a_beat(AMS))),
        (f"wga.hb.{AMS}", b""),
        (f"wga.hb.{AMS}", b'{"error": "expired"}'),
        (f"wga.hb.{AMS}", b"\xff" * 20),
        (f"wga.hb.{AMS}", b"[" * 100_000),
        (f"wga.hb.{AMS}", encoded(a_beat(AMS, room=-1))),
        (f"wga.hb.{AMS}", encoded(a_beat(AMS, version="1" * 256))),
        (f"wga.hb.{AMS}", encoded(a_beat(AMS, t=2**60))),
    ],
)
def test_what_is_no_beat_of_its_sender_is_refused(subject: str, data: bytes) -> None:
    """A record that names another exit than its subject, and one with impossible figures, is no beat."""
    with pytest.raises(ValueError, match="beat"):
        parse(subject, data)


def test_throughput_is_the_mean_of_ten_seconds() -> None:
    """Bytes that have moved count for ten seconds, and evenly."""
    rate = MeanRate()
    found = [rate.after(0 if s < 2 else 5_000_000, s * beats.EVERY_MS) for s in range(15)]
    assert found[:4] == [0, 0, 2_500_000, 1_666_666]
    assert found[11:14] == [500_000, 0, 0]
