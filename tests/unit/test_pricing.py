"""What a paid session costs: integers from its totals, each leg rounded down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.load import parse_settings
from appliance.domain.charges import Amount, charge
from appliance.domain.pricing import Cost, Rates, cost
from appliance.domain.windows import MOST

GIB = 1_073_741_824
A_BYTE = Rates("eur", 0, GIB)  # one millicent a byte
DEFAULT = Rates("eur", 1000, 1000)

TIME = [
    ("none", 1000, 0, 0),
    ("a second", 1000, 1, 16),  # 16.67
    ("two", 1000, 2, 33),  # 33.33
    ("three", 1000, 3, 50),
    ("a second less than a minute", 1000, 59, 983),  # 983.33
    ("a minute", 1000, 60, 1000),
    ("a second more", 1000, 61, 1016),  # 1016.67
    ("a second less than 21 minutes", 1000, 1259, 20_983),  # 20983.33
    ("21 minutes", 1000, 1260, 21_000),
    ("30 days", 1000, 2_592_000, 43_200_000),
    ("cheap, below a millicent", 7, 8, 0),  # 0.93
    ("cheap, above it", 7, 9, 1),  # 1.05
    ("a millicent a minute, a second less", 1, 59, 0),
    ("a millicent a minute", 1, 60, 1),
    ("for nothing", 0, 1260, 0),
    ("2^53 minutes and a second", 1, 60 * 2**53 + 60, 2**53 + 1),
    ("more than the store holds", MOST, 61, MOST),
]


@pytest.mark.parametrize(("rate", "seconds", "expected"), [each[1:] for each in TIME], ids=[each[0] for each in TIME])
def test_time_is_priced_by_the_minute_and_rounded_down_once(rate: int, seconds: int, expected: int) -> None:
    """Seconds at a rate a minute, rounded down once."""
    assert cost(Rates("eur", rate, 1000), seconds, 0) == Cost(expected, 0)


BYTES = [
    ("none", 1000, 0, 0),
    ("a byte", 1000, 1, 0),
    ("just below a millicent", 1000, 1_073_741, 0),  # 0.9999993
    ("just above it", 1000, 1_073_742, 1),  # 1.0000002
    ("a byte less than a GiB", 1000, GIB - 1, 999),
    ("a GiB", 1000, GIB, 1000),
    ("a byte more", 1000, GIB + 1, 1000),
    ("a GB is less", 1000, 10**9, 931),  # 931.32
    ("a millicent a GiB, a byte less", 1, GIB - 1, 0),
    ("a millicent a GiB", 1, GIB, 1),
    ("a millicent a GiB, a byte less than two", 1, 2 * GIB - 1, 1),
    ("a millicent a byte, a byte less than a GiB", GIB, GIB - 1, GIB - 1),
    ("a millicent a byte, a byte more", GIB, GIB + 1, GIB + 1),
    ("a millicent a byte, past 2^53", GIB, 2**53 + 1, 2**53 + 1),
    ("for nothing", 0, 3 * GIB, 0),
    ("all that can be counted", 1000, MOST, 8_589_934_591_999),  # 2^33 GiB less a byte
    ("more than the store holds", MOST, GIB + 1, MOST),
]


@pytest.mark.parametrize(("rate", "moved", "expected"), [each[1:] for each in BYTES], ids=[each[0] for each in BYTES])
def test_bytes_are_priced_by_the_gib_and_rounded_down_once(rate: int, moved: int, expected: int) -> None:
    """Bytes at a rate a GiB (2^30), rounded down once."""
    assert cost(Rates("eur", 1000, rate), 0, moved) == Cost(0, expected)


def test_the_contracts_example() -> None:
    """With prices at their defaults, 21 minutes are 21,000 millicents, 0.21 of the currency; a GiB is a cent."""
    pricing = parse_settings("[pricing]", {}, "host").pricing
    assert pricing is not None
    rates = Rates(pricing.currency, pricing.millicents_per_minute, pricing.millicents_per_gib)
    assert rates.currency == "eur"
    assert cost(rates, 21 * 60, GIB) == Cost(21_000, 1000)


def test_each_leg_is_rounded_by_itself() -> None:
    """Two legs of more than half a millicent each come to nothing, not to one."""
    assert cost(Rates("eur", 1, 1), 59, GIB - 1) == Cost(0, 0)


@pytest.mark.parametrize(
    ("ms", "seconds", "expected"), [(999, 0, 0), (1000, 1, 16), (59_999, 59, 983), (60_000, 60, 1000)]
)
def test_seconds_that_are_over(ms: int, seconds: int, expected: int) -> None:
    """A second counts when it is over."""
    found = charge(DEFAULT, Amount(), Amount(time_ms=ms))
    assert (found.seconds, found.time_millicents) == (seconds, expected)


def test_both_directions_together() -> None:
    """A GiB of which half was sent and half received costs a GiB, a byte less costs less."""
    assert charge(DEFAULT, Amount(), Amount(0, GIB // 2, GIB // 2)).bytes_millicents == 1000
    assert charge(DEFAULT, Amount(), Amount(0, GIB // 2, GIB // 2 - 1)).bytes_millicents == 999


def test_no_price_is_no_cost() -> None:
    """Where no price was configured there is no cost, which is not a cost of 0; the figures are counted."""
    found = charge(None, Amount(), Amount(60_000, GIB, 1))
    assert (found.time_millicents, found.bytes_millicents) == (None, None)
    assert (found.seconds, found.bytes_in, found.bytes_out, found.total_bytes) == (60, GIB, 1, GIB + 1)
    free = charge(Rates("eur", 0, 0), Amount(), Amount(60_000, GIB, 1))
    assert (free.time_millicents, free.bytes_millicents) == (0, 0)


FIGURE = st.integers(0, MOST)


@given(FIGURE, FIGURE, FIGURE, FIGURE)
def test_rounded_down_by_less_than_one(per_minute: int, per_gib: int, seconds: int, moved: int) -> None:
    """A leg is the largest integer that is not above the exact price, or what the store holds if that is less."""
    found = cost(Rates("eur", per_minute, per_gib), seconds, moved)
    for leg, exact, unit in ((found.time, seconds * per_minute, 60), (found.bytes, moved * per_gib, GIB)):
        assert leg == MOST if exact >= MOST * unit else 0 <= exact - leg * unit < unit
