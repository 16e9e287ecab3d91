"""Attacks of some seconds in every test run; `make bad-clients` makes longer ones, with 10,000 connections each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import bad_clients

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 900  # an emulated kernel takes its time


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize(
    ("many", "attack_s"), [(500, 2.5), pytest.param(1500, 4.0, marks=pytest.mark.long)], ids=["few", "many"]
)
def test_good_clients_are_served(
    backend: str, show: Callable[[str], None], many: int, attack_s: float, tls: bool
) -> None:
    """Whatever bad clients do, good ones get their answers, memory is bounded, and nothing is left behind."""
    bad_clients.run(many, attack_s, backend, lambda seen: show(f"{backend}: {seen}"), tls=tls)
