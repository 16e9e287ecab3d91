"""Schedules of what can happen to an exit, drawn and made shorter by hypothesis, and how one is run."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from appliance.store.database import Store
from tests.support.faults import device_steps
from tests.support.faults.invariants import Invariants
from tests.support.faults.steps import WEIGHTS, Step, Steps
from tests.support.faults.world import VARIANTS, World, inline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.faults.world import Connect

IN_MEMORY = Path("/dev/shm")  # noqa: S108 (a file system in memory, where the host has one)
# WireGuard's; and longer, with which limits of session time are reached sooner.
REJECT_AFTER = (180_000, 180_000, 20 * 60_000, 10 * 3_600_000)
# Who may connect is decided as a tick begins, and what its sessions free is seen by the next.
TICKS_TO_SETTLE = 3
FEWEST_STEPS, MOST_STEPS = 12, 45
# Just before the ends of: a leap year's February, a year, a short February, an ordinary month.
STARTS = (1_835_470_000_000, 1_798_750_000_000, 1_803_850_000_000, 1_796_070_000_000)


@dataclass(frozen=True, slots=True)
class Schedule:
    """`wall_ms`: when it begins. `variant`: which configuration it begins with. `reject_after_ms`: for how long a
    handshake lets a tunnel carry."""

    wall_ms: int
    variant: int
    reject_after_ms: int
    steps: tuple[Step, ...]


def drawn() -> st.SearchStrategy[Schedule]:
    kinds = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
    step = st.builds(Step, kind=st.sampled_from(kinds), seed=st.integers(0, 2**32 - 1))
    return st.builds(
        Schedule,
        wall_ms=st.builds(int.__add__, st.sampled_from(STARTS), st.integers(0, 20_000_000)),
        variant=st.integers(0, len(VARIANTS) - 1),
        reject_after_ms=st.sampled_from(REJECT_AFTER),
        steps=st.lists(step, min_size=FEWEST_STEPS, max_size=MOST_STEPS).map(tuple),
    )


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder with an empty store to begin from, `template.db`; gone afterwards."""
    parent = IN_MEMORY if IN_MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="schedules-", dir=parent))

    async def make_template() -> None:
        await (await Store.open(folder / "template.db")).close()

    asyncio.run(make_template())
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # faults on purpose, thousands of them
    try:
        yield folder
    finally:
        logging.disable(before)
        shutil.rmtree(folder)


def run(schedule: Schedule, folder: Path, connect: Connect = inline) -> None:
    """Raises Violated, or whatever else it finds; a note says at which step."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        asyncio.run(_run(schedule, Path(own), folder / "template.db", connect))


async def _run(schedule: Schedule, folder: Path, template: Path, connect: Connect) -> None:
    world = World(folder, template, schedule.wall_ms, schedule.reject_after_ms, connect)
    world.settings = VARIANTS[schedule.variant]
    doing = "the start"
    try:
        await world.prepare()
        await device_steps.prepare(world)
        await world.open_store()
        await world.build()
        invariants = Invariants(world)
        await invariants.check(ticked=True, whole=True)
        steps = Steps(world, lambda: invariants.check(ticked=False, whole=False))
        for number, step in enumerate(schedule.steps, 1):
            doing = f"step {number}, {step.kind}"
            await steps.do(step)
            await invariants.check(ticked=steps.ticked, whole=steps.whole)
            if steps.settled:
                await invariants.settled()
        doing = "the end"
        await _end(world, invariants)
    except Exception as error:
        error.add_note(f"at {doing}")
        raise
    finally:
        await world.close()


async def _end(world: World, invariants: Invariants) -> None:
    world.end_faults()
    await world.bury()
    await world.open_store()
    await world.build()
    assert world.parts is not None
    for _ in range(TICKS_TO_SETTLE):
        await world.parts.ticker.tick()
        await world.parts.queue.settled()
        await invariants.check(ticked=world.parts.node.health.fault is None, whole=True)
    await invariants.settled()
