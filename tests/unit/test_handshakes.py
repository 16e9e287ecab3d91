"""Handshakes that looks find and that the store does not have yet."""

from __future__ import annotations

from msgspec import structs

from appliance.domain.carrying import Span
from appliance.domain.clock import Moment
from appliance.metering.handshakes import Handshakes, Shaken
from appliance.network.wireguard.tunnel import PeerState
from tests.support.unit.a_session import A_SESSION

KEY = A_SESSION.public_key
HOUR = 3_600_000
START = Moment(wall_ms=100 * HOUR, boot_ms=10 * HOUR, boot_id="boot")


def at(ms: int, set_by_ms: int = 0) -> Moment:
    return Moment(START.wall_ms + ms + set_by_ms, START.boot_ms + ms, START.boot_id)


def peer(shook_ms: int | None) -> PeerState:
    """A peer whose last handshake was so many ms after START; None: it had none."""
    seen_ns = 0 if shook_ms is None else (START.wall_ms + shook_ms) * 1_000_000
    return PeerState(KEY, frozenset(), 0, 0, seen_ns)


def running() -> Handshakes:
    """As a process has them that has looked before."""
    found = Handshakes(180_000)
    found.looked()
    return found


def spans(shaken: Shaken | None) -> list[tuple[int, int]]:
    """The spans, in ms after START."""
    assert shaken is not None
    return [(span.from_ms - START.boot_ms, span.until_ms - START.boot_ms) for span in shaken.spans]


def test_none_without_a_change() -> None:
    """A peer without a handshake, and one whose last handshake is stored, have none that is new."""
    stored = structs.replace(A_SESSION, handshake_seen_ns=peer(5).last_handshake_ns)
    found = running()
    assert found.found(A_SESSION, peer(None), START, at(10)) is None
    assert found.found(stored, peer(5), START, at(10)) is None
    assert not found.public_keys()


def test_one_that_a_look_finds_counts_from_that_look() -> None:
    """It begins with the look, not before, and ends 180 s after the handshake, not after the look."""
    found = running()
    assert spans(found.found(A_SESSION, peer(400), START, at(900))) == [(900, 180_400)]
    assert found.public_keys() == {KEY}


def test_a_handshake_is_found_once() -> None:
    """Later looks that show the same handshake find the same span, however late they are."""
    found = running()
    first = found.found(A_SESSION, peer(400), START, at(900))
    assert found.found(A_SESSION, peer(400), START, at(70_000)) == first
    assert found.found(A_SESSION, peer(400), START, at(HOUR)) == first


def test_several_before_they_are_stored() -> None:
    """Handshakes of several looks are kept until they are stored: spans that overlap as one, others with the gap."""
    found = running()
    found.found(A_SESSION, peer(0), START, at(500))
    assert spans(found.found(A_SESSION, peer(120_000), at(119_900), at(120_500))) == [(500, 300_000)]
    last = found.found(A_SESSION, peer(HOUR), at(HOUR), at(HOUR + 500))
    assert spans(last) == [(500, 300_000), (HOUR + 500, HOUR + 180_000)]
    assert last is not None
    assert last.seen_ns == peer(HOUR).last_handshake_ns


def test_what_the_first_look_finds_counts_from_when_it_was() -> None:
    """A handshake while the process was away counts from when it was, also where that is over."""
    for late_ms in (1000, 5 * HOUR):
        found = Handshakes(180_000).found(A_SESSION, peer(HOUR), START, at(HOUR + late_ms))
        assert spans(found) == [(HOUR, HOUR + 180_000)]


def test_not_before_the_last_heartbeat_and_not_after_now() -> None:
    """Where it was by the clock before the last heartbeat, or is still to be, its time is not known: nothing counts
    that is not within 180 s of the heartbeat."""
    for shook_ms in (-HOUR, 3 * HOUR):
        assert spans(Handshakes(180_000).found(A_SESSION, peer(shook_ms), START, at(2 * HOUR))) == []
        soon = Handshakes(180_000).found(A_SESSION, peer(shook_ms), START, at(60_000))
        assert spans(soon) == [(60_000, 180_000)]


def test_a_clock_that_was_set_while_the_process_was_away() -> None:
    """Set by less than 180 s, what both instants allow counts; by more, nothing does, and the handshake is noted."""
    found = Handshakes(180_000).found(A_SESSION, peer(HOUR), START, at(2 * HOUR, set_by_ms=60_000))
    assert spans(found) == [(HOUR, HOUR + 120_000)]
    for by_ms in (HOUR // 2, -HOUR // 2):
        found = Handshakes(180_000).found(A_SESSION, peer(HOUR), START, at(2 * HOUR, set_by_ms=by_ms))
        assert found == Shaken("ses_1", peer(HOUR).last_handshake_ns)


def test_a_clock_that_is_set_while_the_process_runs() -> None:
    """Set by hours between two looks, a handshake still counts from the look that finds it, to 180 s after the last."""
    for by_ms in (5 * HOUR, -5 * HOUR):
        shook = structs.replace(peer(0), last_handshake_ns=(START.wall_ms + by_ms + 700) * 1_000_000)
        assert spans(running().found(A_SESSION, shook, START, at(900, set_by_ms=by_ms))) == [(900, 180_000)]


def test_where_nothing_of_this_boot_is_known() -> None:
    """At the first look after a reboot, a handshake counts only what it must have allowed: it was since the boot."""
    now = Moment(START.wall_ms + HOUR, 120_000, "the next boot")
    found = Handshakes(180_000).found(A_SESSION, peer(HOUR - 20_000), START, now)
    assert found is not None
    assert found.spans == (Span(120_000, 180_000),)


def test_a_shorter_time_is_taken_for_all() -> None:
    """The time that tests set stands for the 180 s."""
    found = Handshakes(3_000)
    assert spans(found.found(A_SESSION, peer(HOUR), START, at(2 * HOUR))) == [(HOUR, HOUR + 3_000)]


def test_what_is_stored_is_forgotten() -> None:
    """What is stored is forgotten, and so is what was found of a session that has ended."""
    found = running()
    other = structs.replace(A_SESSION, id="ses_2", public_key=b"\x02" * 32)
    for session in (A_SESSION, other):
        found.found(session, structs.replace(peer(0), public_key=session.public_key), START, at(10))
    found.forget([KEY], {KEY, other.public_key})
    assert found.public_keys() == {other.public_key}
    found.forget([], {KEY})
    assert not found.public_keys()


def test_what_was_found_of_a_predecessor_is_not_its_successors() -> None:
    """Of a session with the key of another, only the handshakes that are its own count."""
    found = running()
    found.found(A_SESSION, peer(0), START, at(10))
    replacement = structs.replace(A_SESSION, id="ses_2", handshake_seen_ns=peer(0).last_handshake_ns)
    assert found.found(replacement, peer(0), START, at(20)) is None
    assert spans(found.found(replacement, peer(HOUR), at(HOUR), at(HOUR + 5))) == [(HOUR + 5, HOUR + 180_000)]
