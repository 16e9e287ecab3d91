"""Computes a paid session's cost in millicents (1/1000 of a cent): integers, with time and bytes each rounded down."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.domain.windows import MOST

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Rates:
    """Holds the prices in force when a session was created, which it keeps. `currency`: lowercase ISO 4217 code."""

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
    """Computes both costs from totals, never from sums of rounded parts. `total_bytes`: both directions together.

    Each cost is capped at the largest integer the store holds: charges are differences of costs, and still add up.
    """
    return Cost(min(seconds * rates.per_minute // 60, MOST), min(total_bytes * rates.per_gib // GIB, MOST))
