"""The fixtures of the tunnel tests: a world of namespaces, its clients, and the appliance on its exit."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.client import Client, clients_of
from tests.support.tunnel.connecting import Piped, connecting_ground, state_of
from tests.support.tunnel.waiting import READY_SECONDS
from tests.support.tunnel.world import World, new_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.support.tunnel.connecting import Ground

# The suite's limit suits a host; 50 MB through an emulated kernel's tunnel takes minutes.
SECONDS_A_TEST = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder that make a world their own time limit, unless they set one."""
    for item in items:
        if "backend" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS_A_TEST))


@pytest.fixture
def client_count() -> int:
    """How many clients the world has. A test module that wants another number has a fixture of this name."""
    return 2


@pytest.fixture
def world(backend: str, client_count: int) -> Iterator[World]:  # noqa: ARG001 - asked for its check of root
    with new_world(client_count) as made:
        yield made


@pytest.fixture
def clients(world: World, tmp_path: Path) -> Iterator[list[Client]]:
    with clients_of(world, tmp_path) as made:
        yield made


@pytest.fixture
def client(clients: list[Client]) -> Client:
    return clients[0]


@pytest.fixture
def start_appliance(
    world: World, backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Appliance]]:
    """Starts the appliance on the exit, with `serve_options`; `environment`: variables of its process, other keywords:
    config sections over the test's own.

    At the end each one is stopped and must leave the exit as it was; its log is shown with a failure.
    """
    with ExitStack() as stack:
        started: list[Appliance] = []

        def start(
            *serve_options: str, environment: Mapping[str, str] | None = None, **changes: dict[str, object]
        ) -> Appliance:
            directory = tmp_path / f"appliance{len(started)}"
            appliance = Appliance(world, backend, directory, changes, environment, serve_options=serve_options)
            started.append(appliance)
            stack.callback(
                lambda: request.node.add_report_section("teardown", f"log of {appliance.interface}", appliance.log())
            )
            return stack.enter_context(appliance.serving())

        yield start


@pytest.fixture
def appliance(start_appliance: Callable[..., Appliance]) -> Appliance:
    return start_appliance()


# `wg-appliance connect` ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Not by the fixture `backend`: what does not depend on it need not run twice."""
    backend = backend_here()
    if backend is None:
        pytest.skip(NO_ROOT)
    with connecting_ground(backend, tmp_path_factory.mktemp("connect")) as made:
        yield made


@pytest.fixture
def ground(shared: Ground) -> Iterator[Ground]:
    """Afterwards nothing may be left: of the tunnel on the client's machine, of the session at the exit."""
    before = state_of(shared.client.space)
    yield shared
    shared.serve_as_before()
    assert state_of(shared.client.space) == before
    assert shared.exit.live_sessions() == []


@pytest.fixture
def piped(ground: Ground) -> Iterator[Callable[..., Piped]]:
    started: list[Piped] = []

    def start(token: str, *arguments: str, **env: str) -> Piped:
        started.append(Piped(ground.client, token, *arguments, **env))
        return started[-1]

    yield start
    for one in started:
        one.process.terminate()
        one.process.communicate(timeout=READY_SECONDS)
