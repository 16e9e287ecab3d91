"""A fleet of whole appliances with its clients, as tests of it share it."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.fleet.appliances import FleetAppliance, fleet_of
from tests.support.fleet.world import FleetWorld, new_fleet_world
from tests.support.tunnel.client import Client, clients_of
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@dataclass
class WholeFleet:
    """`exits`: the first is the hub. `clients`: hosts without a tunnel yet."""

    world: FleetWorld
    exits: list[FleetAppliance]
    clients: list[Client]

    @property
    def hub(self) -> FleetAppliance:
        return self.exits[0]

    def token(self, account: str = "alice") -> str:
        """Makes one on the hub; returns once each exit takes it."""
        token = self.hub.token(account)
        for each in self.exits:
            await_token(each, token)
        return token

    def heal(self) -> None:
        """Ends all cuts; returns once each exit names all regions again."""
        self.world.heal()
        wanted = {each.region for each in self.exits}
        for each in self.exits:
            until(lambda each=each: each.regions() == wanted, f"{each.name} names {wanted}")  # type: ignore[misc]


def await_token(exit_: FleetAppliance, token: str, status: int = 200) -> None:
    """Returns once the exit answers its holder so."""
    until(lambda: exit_.api("GET", "/v1/usage", token=token).status == status, f"{exit_.name} answers {status}")


@contextmanager
def whole_fleet(
    backend: str, folder: Path, exits: int = 2, clients: int = 2, **changes: Mapping[str, object]
) -> Iterator[WholeFleet]:
    with (
        new_fleet_world(exits, clients) as world,
        clients_of(world, folder) as hosts,
        fleet_of(world, backend, folder, **changes) as made,
    ):
        yield WholeFleet(world, made, hosts)


def is_reported(exit_: FleetAppliance, session: str) -> bool:
    """Whether the hub has acknowledged what the exit has told of it."""
    with closing(sqlite3.connect(exit_.store)) as db:
        return db.execute("SELECT sent > 0 FROM fleet_reports WHERE session_id = ?", (session,)).fetchone() == (1,)
