"""Peers that another process adds and removes, some seconds long in every test run; `make churn` goes on for longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import churn, strangers

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(600)

SEED = 1


@pytest.mark.parametrize("dumps", [20, pytest.param(60, marks=pytest.mark.long)])
def test_dumps_under_churn_are_whole(backend: str, show: Callable[[str], None], dumps: int) -> None:
    """While peers come and go, a dump has everybody who was there all the time, once, and nobody who was not; what
    was counted stays counted. One that could not be taken says so."""
    seen = churn.run(5000, dumps, churn.PER_SECOND, backend, SEED)
    assert seen.moved > 0
    show(f"{backend}: {seen}")


def test_the_appliance_removes_peers_of_another_process(backend: str, show: Callable[[str], None]) -> None:
    """Somebody adds and removes peers of his own: the appliance removes them, no session's peer is put back or
    ended, and every byte is counted."""
    seen = strangers.run(60, 5, strangers.PER_SECOND, backend, SEED)
    assert seen.moved > 0
    assert seen.removed > 0
    show(f"{backend}: {seen}")
