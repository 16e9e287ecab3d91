"""The fixtures of the install tests: a Debian that has booted between a client and an internet, and programs for it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.install import debian, programs
from tests.support.install.installed import Installed
from tests.support.install.machine import Machine
from tests.support.tunnel.client import Client, clients_of
from tests.support.tunnel.world import World, new_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS_A_TEST = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "program" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(SECONDS_A_TEST))


@pytest.fixture
def world(backend: str) -> Iterator[World]:  # noqa: ARG001 - asked for its check of root
    with new_world(clients=1) as made:
        yield made


@pytest.fixture
def client(world: World, tmp_path: Path) -> Iterator[Client]:
    with clients_of(world, tmp_path) as (made,):
        yield made


@pytest.fixture
def release() -> debian.Release:
    """A test that is about another one gives it by parametrize."""
    return debian.MACHINE


@pytest.fixture
def machine(world: World, tmp_path: Path, release: debian.Release) -> Iterator[Machine]:
    """A fresh Debian, running."""
    with ExitStack() as stack:
        made = Machine(world, tmp_path / "machine", release)
        stack.callback(made.kill)
        made.boot()
        yield made


@pytest.fixture
def appliance(machine: Machine) -> Installed:
    """Not yet installed."""
    return Installed(machine)


@pytest.fixture(scope="session")
def program() -> Path:
    return programs.own()


@pytest.fixture(scope="session")
def newer_program() -> Path:
    return programs.newer()


@pytest.fixture(scope="session")
def broken_program() -> Path:
    return programs.broken()
