"""`fleet hubs` makes three whole appliances the hubs, and one of them the only one again; the fleet goes on."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fleet.appliances import FleetAppliance, await_regions, fleet_of
from tests.support.fleet.whole_fleet import await_token
from tests.support.fleet.world import new_fleet_world
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture
def exits(tmp_path: Path) -> Iterator[list[FleetAppliance]]:
    """A hub with two spokes."""
    backend = backend_here()
    if backend is None:
        pytest.skip(NO_ROOT)
    with new_fleet_world(3, 0) as world, fleet_of(world, backend, tmp_path) as made:
        yield made


def status(exit_: FleetAppliance) -> Any:
    return json.loads(exit_.admin("fleet", "status", "--json"))


def roles(exit_: FleetAppliance) -> dict[str, str]:
    return {node["name"]: node["role"] for node in status(exit_)["nodes"]}


def test_three_hubs_and_one_again(exits: list[FleetAppliance], show: Callable[[str], None]) -> None:
    """Tokens hold on all exits throughout, and those that are made are known to a second hub when the command ends."""
    first, second, third = exits
    names = [each.name for each in exits]
    token = first.token("before")
    until(
        lambda: all(node["dialled"] for node in status(first)["nodes"] if node["name"] != first.name), "all have told"
    )
    began = time.monotonic()
    first.admin("fleet", "hubs", *names)
    show(f"from one hub to three: {time.monotonic() - began:.1f} s")
    for each in exits:
        until(lambda each=each: status(each)["quorum"], f"{each.name} knows who leads")  # type: ignore[misc]
        assert roles(each) == {first.name: "hub", second.name: "standby", third.name: "standby"}
        await_token(each, token)
    first.admin("fleet", "hubs", *names)
    began = time.monotonic()
    later = first.token("later")
    show(f"a token made on the hub that leads: {time.monotonic() - began:.1f} s")
    with closing(sqlite3.connect(first.store)) as db:
        assert db.execute("SELECT kept_rev FROM fleet").fetchone()[0] > 0
    for each in exits:
        await_token(each, later)
    generation = status(first)["generation"]

    began = time.monotonic()
    first.admin("fleet", "hubs", first.name)
    show(f"from three hubs to one: {time.monotonic() - began:.1f} s")
    for each in exits:
        until(
            lambda each=each: roles(each) == {first.name: "hub", second.name: "spoke", third.name: "spoke"}, each.name
        )  # type: ignore[misc]
        await_token(each, later)
        assert status(each)["generation"] == generation
    await_regions(exits, {each.region for each in exits})
    last = first.token("last")
    for each in exits:
        await_token(each, last)
    for each in (second, third):
        assert not (each.store.parent / "fleet" / "hub.json").exists()


def test_two_of_three_hubs_are_lost(exits: list[FleetAppliance], show: Callable[[str], None]) -> None:
    """The third is made the hub by hand, and goes on alone; the others are spokes when they are back."""
    first, second, third = exits
    names = [each.name for each in exits]
    until(
        lambda: all(node["dialled"] for node in status(first)["nodes"] if node["name"] != first.name), "all have told"
    )
    first.admin("fleet", "hubs", *names)
    token = first.token("before")
    await_token(third, token)
    first.lose_host()
    second.lose_host()
    until(lambda: not status(third)["quorum"], "the third knows that there is no majority")
    began = time.monotonic()
    said = third.attempt("fleet", "promote", check=True).stderr
    show(f"two hubs are lost, and the third is promoted: {time.monotonic() - began:.1f} s")
    assert "become spokes when they are back" in said
    later = third.token("later")
    await_token(third, later)
    first.revive_host()
    second.revive_host()
    spokes = {third.name: "hub", first.name: "spoke", second.name: "spoke"}
    for each in exits:
        until(lambda each=each: roles(each) == spokes, f"{each.name} knows the hub", 120)  # type: ignore[misc]
        await_token(each, later)
    third.admin("fleet", "hubs", *names)
    for each in exits:
        await_token(each, later)
        until(lambda each=each: roles(each)[third.name] == "hub" and status(each)["quorum"], each.name)  # type: ignore[misc]
