"""How fast traffic can move, at worst."""

from __future__ import annotations

from appliance.domain.throughput import Speed


def test_before_anything_is_seen() -> None:
    """A gigabit link is assumed; the first reading says nothing of a speed, whatever it holds."""
    assert Speed().ms(125_000_000) == 1000
    assert Speed().after(10**15, 5).fastest == 125_000_000


def test_the_fastest_speed_seen_stays() -> None:
    """The fastest that was seen between two readings stays, though traffic slows down."""
    speed = Speed().after(1_000, 5_000).after(1_000 + 500_000_000, 6_000)
    assert speed.fastest == 500_000_000
    assert speed.after(1_000 + 500_000_001, 7_000).ms(250_000_000) == 500


def test_two_readings_at_one_moment() -> None:
    """No time between two readings is no speed; a total that went down is none either."""
    speed = Speed().after(0, 5_000)
    assert speed.after(10**12, 5_000).fastest == 125_000_000
    assert speed.after(-1, 6_000).fastest == 125_000_000


def test_no_bytes_left_move_at_once() -> None:
    """No bytes, or fewer than none, move at once."""
    assert Speed().ms(0) == Speed().ms(-5) == 0
