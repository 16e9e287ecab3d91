"""One exit for all tests that configure nothing of their own; its clients' packets are watched on both sides of it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.egress.vantage import Vantage, vantage_on

if TYPE_CHECKING:
    from collections.abc import Iterator

HELD = pytest.StashKey[ExitStack]()
LAST = pytest.StashKey[pytest.Item]()


def pytest_collection_finish(session: pytest.Session) -> None:
    for item in session.items:
        if "shared" in getattr(item, "fixturenames", ()):
            session.stash[LAST] = item


@pytest.hookimpl(trylast=True)  # after the item's own fixtures
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """The exit goes with the last test that uses it: the session may have an hour before it."""
    if item is item.session.stash.get(LAST, None) and HELD in item.session.stash:
        item.session.stash[HELD].close()


@pytest.fixture(scope="session")
def shared(backend: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Vantage]:
    with ExitStack() as stack:
        request.session.stash[HELD] = stack
        yield stack.enter_context(vantage_on(backend, tmp_path_factory.mktemp("egress")))


@pytest.fixture
def exit_(shared: Vantage, request: pytest.FixtureRequest) -> Iterator[Vantage]:
    before = len(shared.appliance.log())
    yield shared
    request.node.add_report_section("teardown", "log of the appliance", shared.appliance.log()[before:])
