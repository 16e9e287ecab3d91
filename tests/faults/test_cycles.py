"""Some hundreds of sessions opened and closed in every test run; `make cycles` does 10,000."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import cycles

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = 240
SECONDS = 600  # an emulated kernel does a dozen a second


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("tier", ["free", pytest.param("paid", marks=pytest.mark.long)])
def test_what_the_server_holds_levels_off(backend: str, tier: str, show: Callable[[str], None]) -> None:
    """Memory, open files and the store: nothing stays of a session that was closed but what it has to keep."""
    held = cycles.run(MANY, backend, tier=tier, retention=cycles.SHORT, report=lambda _: None)
    show(f"{backend}, {tier}: {held[-1]}")
