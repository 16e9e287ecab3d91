"""Some kills in every test run, on whichever tunnel there is; `make kills` does many more, from a seed of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import kills

if TYPE_CHECKING:
    from collections.abc import Callable

KILLS = 15
SEED = 1


@pytest.mark.timeout(900)  # an emulated kernel takes minutes
def test_a_killed_server_leaves_nothing_behind(backend: str, show: Callable[[str], None]) -> None:
    """Killed in the middle of create, delete, tick or start: no leaked address, row or peer, no session lost."""
    tally = kills.run(KILLS, SEED, backend)
    assert tally.kills >= KILLS
    show(f"{backend}: {tally}")
