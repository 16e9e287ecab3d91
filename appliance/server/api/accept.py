"""Decides by the Accept header which form of an answer a client would rather have (RFC 9110, section 12.5.1). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TEXT, JSON = "text/plain", "application/json"


def prefers_text(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tells whether plain text is wanted more than JSON; where both are wanted alike, it is not."""
    accepted = ",".join(value.decode("latin-1") for name, value in headers if name == b"accept")
    ranges = dict(_ranges(accepted))
    return _quality(ranges, TEXT) > _quality(ranges, JSON)


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for each in accept.lower().split(","):
        media, *parameters = (part.strip() for part in each.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                quality = _number(value.strip())
        if media:
            yield media, quality


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if 0 <= number <= 1 else 0.0


def _quality(ranges: dict[str, float], media: str) -> float:
    """Returns how much a media type is wanted: what the most specific range says."""
    for pattern in (media, f"{media.partition('/')[0]}/*", "*/*"):
        if pattern in ranges:
            return ranges[pattern]
    return 0.0
