"""A host with the appliance's state on it, and no server running."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.doctor.host_under_test import Host, build_clock, new_host
from tests.support.real_backend import NO_ROOT, backend_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture
def host(tmp_path: Path, clock: Path) -> Iterator[Host]:
    """Not by the fixture `backend`: what does not depend on it need not run twice."""
    backend = backend_here()
    if backend is None:
        pytest.skip(NO_ROOT)
    with new_host(backend, tmp_path, clock) as made:
        made.init()
        yield made


@pytest.fixture
def served(host: Host) -> Iterator[Host]:
    """The same, with the server running; at its end it must leave the host as it was."""
    with host.appliance.serving():
        yield host
