"""(baseline, sample) -> delta."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.accounting import Counters, read_counters
from appliance.domain.entities import Baseline
from appliance.domain.windows import MOST

COUNTER = st.integers(0, MOST)


def read(baseline: Baseline | None, rx: int, tx: int) -> Counters:
    return read_counters(baseline, rx, tx, boot_id="boot", ifindex=4)


TABLE = [
    ("no baseline", None, (10, 20), (10, 20)),
    ("nothing moved", Baseline("boot", 4, 10, 20), (10, 20), (0, 0)),
    ("both grew", Baseline("boot", 4, 10, 20), (15, 26), (5, 6)),
    ("one grew", Baseline("boot", 4, 10, 20), (10, 21), (0, 1)),
    ("received fell: added again", Baseline("boot", 4, 10, 20), (3, 25), (3, 25)),
    ("sent fell: added again", Baseline("boot", 4, 10, 20), (12, 5), (12, 5)),
    ("added again, nothing yet", Baseline("boot", 4, 10, 20), (0, 0), (0, 0)),
    ("another interface", Baseline("boot", 3, 10, 20), (15, 26), (15, 26)),
    ("another boot", Baseline("before", 4, 10, 20), (15, 26), (15, 26)),
    ("more than the store holds", Baseline("boot", 4, 2**62, 0), (2**64 - 1, 0), (2**62 - 1, 0)),
]


@pytest.mark.parametrize(("baseline", "counters", "moved"), [t[1:] for t in TABLE], ids=[t[0] for t in TABLE])
def test_the_delta_is_what_moved_since_the_baseline(
    baseline: Baseline | None, counters: tuple[int, int], moved: tuple[int, int]
) -> None:
    """What moved since the baseline; the next baseline is always what was just read."""
    assert read(baseline, *counters) == Counters(*moved, Baseline("boot", 4, *(min(c, MOST) for c in counters)))


@given(st.lists(st.tuples(COUNTER, COUNTER), max_size=8))
def test_growing_counters_are_billed_once(readings: list[tuple[int, int]]) -> None:
    """However often counters that only grow are read, the deltas add up to the last reading."""
    steps = list(zip(sorted(rx for rx, _ in readings), sorted(tx for _, tx in readings), strict=True))
    baseline, total = None, (0, 0)
    for rx, tx in steps:
        found = read(baseline, rx, tx)
        baseline, total = found.baseline, (total[0] + found.rx_bytes, total[1] + found.tx_bytes)
    assert total == (steps[-1] if steps else (0, 0))


@given(COUNTER, COUNTER, COUNTER, COUNTER)
def test_never_negative_never_too_much(rx0: int, tx0: int, rx: int, tx: int) -> None:
    """A delta is at least nothing and at most what the counter shows."""
    found = read(Baseline("boot", 4, rx0, tx0), rx, tx)
    assert 0 <= found.rx_bytes <= rx
    assert 0 <= found.tx_bytes <= tx
