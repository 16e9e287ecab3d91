"""Whole appliances on the hosts of a fleet world: each a real process with its store, its tunnel and its own region."""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.support.tunnel.appliance_process import Appliance
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.fleet.world import ExitSpace, FleetWorld

REGIONS = ("fsn", "ams", "sin", "nyc", "lon", "par", "tok", "syd", "sao", "jnb")  # of the hosts, in order
_JOIN_TOKEN = re.compile(r"wgj1\.\S+")


class FleetAppliance(Appliance):
    """Is an appliance named after its region (fsn1 in fsn). `host`: where it runs."""

    def __init__(
        self, host: ExitSpace, backend: str, directory: Path, changes: Mapping[str, Mapping[str, object]]
    ) -> None:
        region = REGIONS[host.number - 1]
        self.name = f"{region}1"
        node = {"name": self.name, "region": region} | dict(changes.get("node", {}))
        super().__init__(host, backend, directory, {**changes, "node": node})
        self.host = host

    def regions(self) -> set[str]:
        """Returns the regions that its API names; none where it does not answer."""
        answer = self.api("GET", "/v1/regions")
        return {each["code"] for each in answer.body["regions"]} if answer.status == 200 else set()

    def lose_host(self) -> None:
        """The host is dead, without a word."""
        self.host.lose()
        self.kill()

    def revive_host(self) -> None:
        """The host boots, and the appliance starts on it."""
        self.host.bring_back()
        self.space = self.host.exit
        self.start()


@contextmanager
def exits_of(
    world: FleetWorld, backend: str, directory: Path, **changes: Mapping[str, object]
) -> Iterator[list[FleetAppliance]]:
    """One appliance on each host, started and ready, each by itself. `changes`: sections of all configurations.

    At the end each one that runs is stopped, and must leave its host as it was; the logs go with a failure.
    """
    with ExitStack() as stack:
        made = [FleetAppliance(host, backend, directory / f"exit{host.number}", dict(changes)) for host in world.hosts]
        try:
            for each in made:
                stack.enter_context(each.serving())
            yield made
        except BaseException as error:
            for each in made:
                error.add_note(f"log of {each.name}:\n{each.log()[-6000:]}")
            raise


def make_fleet(exits: list[FleetAppliance]) -> None:
    """Makes a fleet of them, as an operator does: the first is its hub, the others join by the command that it prints.

    Returns when the API of each names the regions of all.
    """
    hub, *spokes = exits
    printed = hub.admin("fleet", "init")
    for number, spoke in enumerate(spokes):
        if number:  # an invitation is good for one host
            printed = hub.admin("fleet", "invite")
        found = _JOIN_TOKEN.search(printed)
        assert found is not None, f"no join token in {printed!r}"
        spoke.admin("node", "join", found[0], "--yes")
    await_regions(exits, {each.region for each in exits})


def await_regions(exits: list[FleetAppliance], wanted: set[str], seconds: float = 60) -> None:
    for each in exits:
        until(lambda each=each: each.regions() == wanted, f"{each.name} names the regions {wanted}", seconds)  # type: ignore[misc]


@contextmanager
def fleet_of(
    world: FleetWorld, backend: str, directory: Path, **changes: Mapping[str, object]
) -> Iterator[list[FleetAppliance]]:
    """As `exits_of`, a fleet."""
    with exits_of(world, backend, directory, **changes) as exits:
        make_fleet(exits)
        yield exits
