"""Attacks of some seconds in every test run; `make bad-clients` makes longer ones, with 10,000 connections each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import bad_clients

if TYPE_CHECKING:
    from collections.abc import Callable

MANY, ATTACK_S = 1500, 4.0
SECONDS = 900  # an emulated kernel takes its time


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_good_clients_are_served(backend: str, show: Callable[[str], None], tls: bool) -> None:
    """Whatever bad clients do, good ones get their answers, memory is bounded, and nothing is left behind."""
    bad_clients.run(MANY, ATTACK_S, backend, lambda seen: show(f"{backend}: {seen}"), tls=tls)
