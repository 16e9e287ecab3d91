"""What counts as an outage of a ping in the tunnel tests."""

from __future__ import annotations

import pytest

from tests.support.tunnel.ping import outages


@pytest.mark.parametrize(
    ("answered", "disturbed", "lost"),
    [
        ([1, 2, 3], None, []),
        ([1, 4, 5, 9], None, [2, 3]),
        ([1, 4, 5, 7, 8], (5, 7), [2]),
        ([1, 4, 5, 6, 8], (5, 6), [2]),
        ([1, 9, 10], (1, 9), [7]),
        ([1, 9, 10, 12, 13], (1, 9), [7, 1]),
        ([1, 4, 6, 7, 9, 10], (7, 9), [2, 1]),
    ],
    ids=[
        "none",
        "two",
        "the test's own after one that was over",
        "the test's own, a packet later",
        "one that goes on",
        "another after it",
        "two and the test's own",
    ],
)
def test_only_the_tests_own_outage_is_left_out(
    answered: list[int], disturbed: tuple[int, int] | None, lost: list[int]
) -> None:
    """What the test itself causes is left out, and nothing else."""
    assert outages(answered, disturbed) == lost
