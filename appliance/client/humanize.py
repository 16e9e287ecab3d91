"""Formats sizes, durations and money for people."""

from __future__ import annotations

from itertools import pairwise

MILLICENTS = 100_000  # one unit of the currency
LONGEST_SHOWN = 500  # characters of a text that another has written


def span(ms: int) -> str:
    """Formats a duration (milliseconds) in its largest unit: "12s", "5m", "3h", "40d"."""
    seconds = max(0, ms) // 1000
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def long_span(seconds: int) -> str:
    """Formats a duration (seconds) in its two largest units: "1h 59m", "5m 2s", "12s"."""
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    for (large, length), (small, part) in pairwise(units):
        if seconds >= length:
            return f"{seconds // length}{large} {seconds % length // part}{small}"
    return f"{max(0, seconds)}s"


def brief_span(seconds: int) -> str:
    """Formats a duration (seconds) in its two largest units, without one that is zero: "2h", "1h 59m", "5m", "0s"."""
    parts = [part for part in long_span(seconds).split() if not part.startswith("0")]
    return " ".join(parts) or "0s"


def allowance(used: str, limit: str | None, resets_in_s: int) -> str:
    """Formats the use of a window: "5m of 2h, resets in 23 h"; `limit` None: "unmetered"."""
    if limit is None:
        return "unmetered"
    left = span(resets_in_s * 1000)
    return f"{used} of {limit}, resets in {left[:-1]} {left[-1]}"


def size(count: int) -> str:
    """Formats bytes with a binary unit: "512 B", "1.2 MiB"."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1023.95:  # larger amounts would be rounded to 1024.0: they belong to the next unit
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def short_size(count: int) -> str:
    """Formats bytes in at most five columns: "512B", "1.2M", "12M"."""
    amount = float(count)
    for unit in ("B", "K", "M", "G"):
        if amount < 1023.5:  # larger amounts would be rounded to 1024: they belong to the next unit
            return f"{amount:.1f}{unit}" if unit != "B" and amount < 9.95 else f"{amount:.0f}{unit}"
        amount /= 1024
    return f"{amount:.1f}T" if amount < 9.95 else f"{amount:.0f}T"


def clock_time(seconds: int) -> str:
    """Formats a duration (seconds) as on a stopwatch: "0:07:03"."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def price(millicents: int, currency: str) -> str:
    """Formats an amount, rounded down to hundredths as a bill is: "0.21 EUR"."""
    hundredths = millicents * 100 // MILLICENTS
    return f"{hundredths // 100}.{hundredths % 100:02} {currency.upper()}"


def shortened(text: str) -> str:
    """Returns what fits on a terminal of a text that may have any length."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
