"""Divides a session's use over days and months (UTC), and computes each month's charge. Pure."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct

from appliance.domain import pricing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from appliance.domain.pricing import Rates


DAY_MS = 86_400_000


class Amount(Struct, frozen=True, gc=False):
    """Adds and subtracts session time and bytes together."""

    time_ms: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.time_ms + other.time_ms, self.bytes_in + other.bytes_in, self.bytes_out + other.bytes_out)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.time_ms - other.time_ms, self.bytes_in - other.bytes_in, self.bytes_out - other.bytes_out)

    @property
    def total_bytes(self) -> int:
        """Returns the bytes of both directions."""
        return self.bytes_in + self.bytes_out

    def share(self, of: int, whole: int) -> Amount:
        """Returns `of` parts of `whole`, each figure rounded down."""
        return Amount(self.time_ms * of // whole, self.bytes_in * of // whole, self.bytes_out * of // whole)


class Charge(Struct, frozen=True, gc=False):
    """Holds the figures of one invoice line. Costs are None if no price was configured."""

    seconds: int
    bytes_in: int
    bytes_out: int
    time_millicents: int | None
    bytes_millicents: int | None

    def __add__(self, other: Charge) -> Charge:
        """Adds charges of one session: either both have costs, or neither."""
        return Charge(
            self.seconds + other.seconds,
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
            _sum(self.time_millicents, other.time_millicents),
            _sum(self.bytes_millicents, other.bytes_millicents),
        )

    @property
    def total_bytes(self) -> int:
        """Returns the bytes of both directions."""
        return self.bytes_in + self.bytes_out


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def day_of(wall_ms: int) -> str:
    return datetime.fromtimestamp(wall_ms // 1000, UTC).strftime("%Y-%m-%d")


def month_of(day: str) -> str:
    return day[:7]


def day_start(day: str) -> int:
    """Returns the first ms of the day."""
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1000


@lru_cache(maxsize=64)
def month_bounds(month: str) -> tuple[int, int]:
    """Returns the first ms of the month and of the next one. Raises ValueError unless `month` is like `2026-11`."""
    first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    start_ms = int(first.timestamp()) * 1000
    return start_ms, start_ms + monthrange(first.year, first.month)[1] * DAY_MS


def by_day(amount: Amount, start_ms: int, end_ms: int) -> Iterator[tuple[str, Amount]]:
    """Divides `amount`, moved evenly from `start_ms` to `end_ms`, over the days in between; the parts add up to it."""
    done = Amount()
    day = day_of(start_ms)
    last = day_of(max(start_ms, end_ms - 1))
    while day != last:
        after = day_start(day) + DAY_MS
        upto = amount.share(after - start_ms, end_ms - start_ms)
        yield day, upto - done
        done, day = upto, day_of(after)
    yield day, amount - done


def add_days(days: Iterable[tuple[str, Amount]], more: Iterable[tuple[str, Amount]]) -> list[tuple[str, Amount]]:
    """Adds amounts to those of the same days; returns all days in order."""
    sums = dict(days)
    for day, amount in more:
        sums[day] = sums.get(day, Amount()) + amount
    return sorted(sums.items())


def charge(rates: Rates | None, before: Amount, after: Amount) -> Charge:
    """Charges what moved between two totals of a session.

    Takes differences of rounded totals, so that a session's charges add up to the charge of the whole session,
    however it is divided.
    """
    seconds = after.time_ms // 1000 - before.time_ms // 1000
    moved = after - before
    if rates is None:
        return Charge(seconds, moved.bytes_in, moved.bytes_out, None, None)
    cost = _cost(rates, after) - _cost(rates, before)
    return Charge(seconds, moved.bytes_in, moved.bytes_out, cost.time, cost.bytes)


def by_month(rates: Rates | None, days: Iterable[tuple[str, Amount]], before: Amount) -> Iterator[tuple[str, Charge]]:
    """Yields a charge for each month of `days` (in order), oldest first. `before`: the session total before them."""
    month, total, at_start = None, before, before
    for day, amount in days:
        if month is not None and month_of(day) != month:
            yield month, charge(rates, at_start, total)
            at_start = total
        month = month_of(day)
        total += amount
    if month is not None:
        yield month, charge(rates, at_start, total)


def _cost(rates: Rates, total: Amount) -> pricing.Cost:
    return pricing.cost(rates, total.time_ms // 1000, total.total_bytes)
