"""What a paid session costs, in millicents (1/1000 of a cent). Integers throughout, each leg rounded down."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.domain.windows import MOST

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Rates:
    """Those in force when a session was created; they stay with it. `currency` is a lowercase ISO 4217 code."""

    currency: str
    per_minute: int
    per_gib: int


@dataclass(frozen=True, slots=True)
class Cost:
    time: int
    bytes: int

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.time - other.time, self.bytes - other.bytes)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.time + other.time, self.bytes + other.bytes)


def cost(rates: Rates, seconds: int, total_bytes: int) -> Cost:
    """Both legs from totals, never from sums of rounded pieces. `total_bytes`: both directions together.

    A leg past what the store holds stays at that: charges are differences of these, and still add up to it.
    """
    return Cost(min(seconds * rates.per_minute // 60, MOST), min(total_bytes * rates.per_gib // GIB, MOST))
