"""Faults of a fleet of a hub, its standby and a spoke, of which the standby is promoted again and again."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.support.faults.violations import Violated
from tests.support.fleet.host_faults import HostFault, HostsUnderFaults, made_hosts, under_faults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path
    from random import Random

    from tests.support.fleet.hosts_running import RunningHost

    Promotion = Callable[[RunningHost, RunningHost], Awaitable[None]]

READY_WITHIN_S = 60.0
MOSTLY = 0.7
GENERATION = "this host is the hub of generation "
BEHIND = ("changes of accounts, tokens or hosts", "has followed no change of generation")


class PromotedFleet(HostsUnderFaults):
    """A hub, its standby and a spoke, in this order at first."""

    def __init__(self, hosts: list[RunningHost], random: Random) -> None:
        super().__init__(hosts, 2, random)

    def possible(self, host: RunningHost) -> dict[str, HostFault]:
        promotions: dict[str, tuple[float, Promotion]] = {
            "promotions, hub killed": (2, self._hub_killed),
            "promotions, hub cut off": (2, self._hub_cut_off),
            "promotions, hub there": (1.5, self._hub_there),
            "promotions, standby behind": (2, self._standby_behind),
            "promotions, command killed": (1.5, self._command_killed),
        }
        return super().possible(host) | {
            name: HostFault(weight, lambda: self.hubs, lambda *_, how=how: self._promotion(how))
            for name, (weight, how) in promotions.items()
        }

    async def _promotion(self, how: Promotion) -> bool:
        """Waits until there are a hub and a standby, and has the standby promoted, with the hub's return.

        Mostly the standby has all of the hub's by then, at other times perhaps nothing of its generation.
        """
        if not await self.within(READY_WITHIN_S, lambda: self.leader() is not None):
            raise Violated(f"there is no hub with a standby: {[each.standing for each in self.hosts]}")
        hub = self.leader()
        assert hub is not None
        (standby,) = (each for each in self.hubs if each is not hub)
        if self.random.random() < MOSTLY and not await self.within(READY_WITHIN_S, lambda: _follows(standby, hub)):
            raise Violated(f"{standby.name} does not follow: {[each.standing for each in self.hosts]}")
        before = max(each.standing.gen for each in self.hosts if each.standing is not None)
        await how(hub, standby)
        now = standby.standing
        if now is None or (now.role, now.gen) != ("hub", before + 1):
            raise Violated(f"{standby.name} was promoted after generation {before}, and is {now}")
        self.done.happened["promotions"] += 1
        return True

    async def _promote(self, standby: RunningHost, *, force: bool = False) -> None:
        """By the command; forced where it says that the standby lacks something. Raises Violated if it fails."""
        done = await standby.command("fleet", "promote", *(["--force"] if force else []))
        assert done is not None
        if done.status and not force and any(each in done.err for each in BEHIND):
            self.done.history.append(f"  {standby.name}: {done.err}")
            await self._promote(standby, force=True)
            return
        if done.status or GENERATION not in done.err:
            raise Violated(f"promote on {standby.name}: {done}")
        self.done.happened["of them forced"] += force

    async def _hub_killed(self, hub: RunningHost, standby: RunningHost) -> None:
        await hub.kill()
        await self._promote(standby)
        await self.some_time()
        await hub.start()

    async def _hub_cut_off(self, hub: RunningHost, standby: RunningHost) -> None:
        """Both lead meanwhile, and are told of changes."""
        self.junctions.cut_off(hub)
        await self.some_time(2)
        await self._promote(standby)
        await self.some_time()
        self.junctions.heal(hub)

    async def _hub_there(self, hub: RunningHost, standby: RunningHost) -> None:  # noqa: ARG002 (as the others)
        await self._promote(standby, force=True)

    async def _standby_behind(self, hub: RunningHost, standby: RunningHost) -> None:
        """The spoke has followed what the standby has not, as the hub dies."""
        self.junctions.silence(standby)
        for _ in range(3):
            await self.changes.make(hub)
        await self.some_time(2)
        await hub.kill()
        self.junctions.heal(standby)
        await self._promote(standby)
        await self.some_time()
        await hub.start()

    async def _command_killed(self, hub: RunningHost, standby: RunningHost) -> None:
        """The command is killed at any moment, and given again; the server may be promoted by then."""
        await hub.kill()
        await standby.command("fleet", "promote", "--force", killed_after_s=self.random.uniform(0.3, 3))
        now = standby.standing
        if now is None or now.role != "hub":
            await self._promote(standby)
        await hub.start()

    async def compare(self) -> None:
        await super().compare()
        generations = {each.standing.gen for each in self.hosts if each.standing is not None}
        promotions = self.done.happened["promotions"]
        if generations != {1 + promotions}:
            raise Violated(f"{promotions} promotions, and generations {generations}")
        self.done.happened["generations"] = promotions


def _follows(standby: RunningHost, hub: RunningHost) -> bool:
    """Whether it has all that the hub had a moment ago."""
    ((newest, generation),) = hub.rows("SELECT coalesce(max(rev), 0), (SELECT gen FROM fleet) FROM fleet_changes")
    ((followed, of),) = standby.rows("SELECT acc_rev, gen FROM fleet")
    return bool(of == generation and followed >= newest)


@asynccontextmanager
async def promoted_fleet(folder: Path, random: Random) -> AsyncIterator[PromotedFleet]:
    """Runs the fleet, with traffic and changes, until the end of the block."""
    async with under_faults(PromotedFleet(await made_hosts(folder, 3), random)) as fleet:
        yield fleet
