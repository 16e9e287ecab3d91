"""Some kills in every test run, on whichever tunnel there is; `make kills` does many more, from a seed of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import kills

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = 1


@pytest.mark.timeout(900)  # an emulated kernel takes minutes
@pytest.mark.parametrize("many", [8, pytest.param(15, marks=pytest.mark.long)])
def test_a_killed_server_leaves_nothing_behind(backend: str, show: Callable[[str], None], many: int) -> None:
    """Killed in the middle of create, delete, tick or start: no leaked address, row or peer, no session lost."""
    tally = kills.run(many, SEED, backend)
    assert tally.kills >= many
    show(f"{backend}: {tally}")
