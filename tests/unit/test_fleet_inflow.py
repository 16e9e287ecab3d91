"""What one member sends too much of is dropped; what others send, and answers, are not."""

from __future__ import annotations

from appliance.fleet.link.inflow import KNOWN, OF_BEATS, OF_OTHERS, Inflow


def taken(inflow: Inflow, subject: bytes, messages: int, now_s: float) -> int:
    return sum(inflow.takes(subject, now_s) for _ in range(messages))


def test_each_member_has_its_own() -> None:
    """So many at once, some more in time; beats and requests are counted apart, a request by who asks."""
    inflow = Inflow()
    assert taken(inflow, b"wga.hb.THIEF", 10_000, 1) == OF_BEATS[0]
    assert taken(inflow, b"wga.hb.THIEF", 10_000, 3) == 2 * OF_BEATS[1]
    assert taken(inflow, b"wga.rpc.FRA.THIEF.open", 10_000, 3) == OF_OTHERS[0]
    assert taken(inflow, b"wga.rpc.FRA.THIEF.close", 10_000, 3) == 0
    assert taken(inflow, b"wga.rpc.FRA.AMS.open", 10, 3) == taken(inflow, b"wga.hb.AMS", 10, 3) == 10
    assert inflow.dropped == 10_000 * 4 - OF_BEATS[0] - 2 * OF_BEATS[1] - OF_OTHERS[0]


def test_answers_are_always_taken() -> None:
    for subject in (b"_INBOX_FRA.a.b", b"$SYS.x", b"wga", b"wga.hb", b""):
        assert taken(Inflow(), subject, 10_000, 1) == 10_000


def test_it_remembers_so_many() -> None:
    inflow = Inflow()
    for number in range(3 * KNOWN):
        assert inflow.takes(b"wga.hb.%d" % number, 1)
    assert len(inflow._left) <= KNOWN
