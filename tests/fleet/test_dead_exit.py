"""An exit of three dies without a word, as a host that lost its power does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.fleet_outage import dead_exit
from tests.support.fleet.whole_fleet import WholeFleet, whole_fleet
from tests.support.real_backend import NO_ROOT, backend_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(900)  # an emulated kernel takes minutes


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeFleet]:
    backend = backend_here()
    if backend is None:
        pytest.skip(NO_ROOT)
    with whole_fleet(backend, tmp_path_factory.mktemp("three"), exits=3, clients=1) as made:
        yield made


def test_sessions_open_elsewhere_soon(three: WholeFleet, show: Callable[[str], None]) -> None:
    """Nobody answers 500 meanwhile, and `available` and the regions never disagree."""
    seen = dead_exit(three, three.exits[2])
    assert seen.wrong == []
    show(str(seen))
    three.exits[2].revive_host()
    three.heal()
