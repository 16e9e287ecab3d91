"""Exits of a fleet that tell each other of themselves over the bus in memory, on one virtual clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.fleet.presence.beating import Beating
from appliance.fleet.presence.beats import Figures, OwnBeats
from appliance.fleet.presence.directory import Directory
from appliance.fleet.presence.placement import FleetNodes
from appliance.sessions.node import Node, NodeHealth
from tests.support.fleet.bus import Bus
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.clock import Clock
    from appliance.fleet.link.wire import HubLink
    from appliance.fleet.membership.members import FleetMember

LOOK_S = 0.2


@dataclass
class Accounts:
    """At which change an exit's accounts are, and what hubs' beats have said of theirs."""

    at: tuple[int, int] = (1, 1)
    told: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class PresentExit:
    """Has what an exit needs to be in the fleet. `running`: it sends and takes beats."""

    node: Node
    directory: Directory
    beating: Beating
    nodes: FleetNodes
    accounts: Accounts
    running: bool = True


def a_present_exit(
    member: FleetMember, members: Callable[[], list[FleetMember]], link: HubLink, clock: Clock, inst: str
) -> PresentExit:
    """An exit that works, with nothing on it."""
    node = Node(member.name, member.region, "192.0.2.1", NodeHealth(clock, 10**9, None))
    node.health.checked(None)
    directory, accounts = Directory(member, members), Accounts()
    figures = Figures(lambda: 0, lambda: 100, lambda: 0, lambda: 125_000_000, lambda: accounts.at)
    own = OwnBeats(member, node, figures, clock, inst=inst, refusal=directory.refusal)
    nodes = FleetNodes(node, directory, own, link, clock, lambda _: 0)
    beating = Beating(link, own, directory, clock, lambda gen, acc_rev: accounts.told.append((gen, acc_rev)))
    return PresentExit(node, directory, beating, nodes, accounts)


class PresenceWorld:
    """Runs the exits step by step: `pass_s` lets time pass, `until` waits and returns how long it took."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.bus = Bus(self.clock)
        self.members: list[FleetMember] = []
        self.exits: dict[str, PresentExit] = {}

    async def add(self, member: FleetMember, inst: str = "A") -> PresentExit:
        """Starts the exit; one that runs under its id goes on, as another machine."""
        if member not in self.members:
            self.members.append(member)
        added = a_present_exit(member, lambda: self.members, self.bus.node(member.id), self.clock, inst)
        await added.beating.listen()
        self.exits[f"{member.name} {inst}"] = added
        return added

    async def pass_s(self, seconds: float) -> None:
        for _ in range(round(seconds / LOOK_S)):
            await self.step()

    async def step(self) -> None:
        self.clock.advance(LOOK_S)
        for each in list(self.exits.values()):
            if each.running:
                await each.beating.look()
        await self.bus.idle()

    async def until(self, holds: Callable[[], bool], most_s: float = 60) -> float:
        """Returns after how long it holds; fails if it does not within `most_s`."""
        for steps in range(round(most_s / LOOK_S) + 1):
            if holds():
                return steps * LOOK_S
            await self.step()
        raise AssertionError(f"not within {most_s} s")
