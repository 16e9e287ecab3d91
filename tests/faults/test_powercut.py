"""Some power cuts in every test run; `make powercut` does many more, of a longer run, from a seed of its own."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.faults.powercut import broken_by, cannot_record, record
from tests.support.real_backend import backend_here

if TYPE_CHECKING:
    from collections.abc import Callable

REQUESTS = 200
UNSYNCED = 10
SEED = 1


@pytest.mark.parametrize("cuts", [30, pytest.param(100, marks=pytest.mark.long)])
def test_a_power_cut_loses_nothing_that_was_answered(show: Callable[[str], None], cuts: int) -> None:
    """The store opens, is whole, and holds what clients were told; a disk that does not sync fails the same check.

    One tunnel is enough: which one is in use does not matter to the store.
    """
    backend, reason = backend_here(), cannot_record()
    if backend is None or reason is not None:
        pytest.skip(reason or "")
    random = Random(SEED)  # noqa: S311 (a test's choices)
    recording = record(REQUESTS, random, backend)
    assert recording.checkpoints, "the log was brought into the file under load"
    assert broken_by(recording, cuts, random) == []
    unsynced = broken_by(recording, UNSYNCED, random, syncs=False)
    assert unsynced
    show(f"{cuts} cuts of {recording}; without the syncs {UNSYNCED} cuts leave {len(unsynced)} faults")
