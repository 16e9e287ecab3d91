"""What another host has sent is read, or refused in one way."""

from __future__ import annotations

import msgspec
import pytest

from appliance.fleet.link.reading import Unreadable, read


class Asked(msgspec.Struct):
    """Asks for something."""

    number: int


@pytest.mark.parametrize(
    "data", [b"", b"?", b"[]", b"{}", b'{"number": "1"}', b'{"x": "\xff"}', b'{"x": ' + b"[" * 100_000]
)
def test_what_is_not_of_the_type_is_unreadable(data: bytes) -> None:
    """No JSON, of another type, not UTF-8, nested too deeply."""
    with pytest.raises(Unreadable):
        read(data, Asked)


def test_what_is_not_known_is_passed_over() -> None:
    """Newer versions send more."""
    assert read(b'{"number": 1, "more": []}', Asked) == Asked(1)
