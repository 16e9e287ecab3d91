"""One exit for all tests of a file, whose clients' packets are watched on both sides of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from vantage import Vantage, vantage_on

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def egress() -> dict[str, object]:
    """The exit's `[egress]`. A test module that wants other than the defaults has a fixture of this name."""
    return {}


@pytest.fixture(scope="module")
def shared(backend: str, egress: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vantage]:
    with vantage_on(backend, tmp_path_factory.mktemp("egress"), egress=egress) as made:
        yield made


@pytest.fixture
def exit_(shared: Vantage, request: pytest.FixtureRequest) -> Iterator[Vantage]:
    before = len(shared.appliance.log())
    yield shared
    request.node.add_report_section("teardown", "log of the appliance", shared.appliance.log()[before:])
