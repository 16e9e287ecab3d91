"""Schedules: drawn from a seed, run, and made shorter when one of them breaks an invariant."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from appliance.store.connection import Store
from tests.faults import steps
from tests.faults.invariants import Invariants, Violated
from tests.faults.steps import Step, Steps
from tests.faults.world import VARIANTS, World, inline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.faults.world import Connect

IN_MEMORY = Path("/dev/shm")  # noqa: S108 (a file system in memory, where the host has one)
SHORTENING_RUNS = 400
# Just before the ends of: a leap year's February, a year, a short February, an ordinary month.
STARTS = (1_835_470_000_000, 1_798_750_000_000, 1_803_850_000_000, 1_796_070_000_000)


@dataclass(frozen=True, slots=True)
class Schedule:
    wall_ms: int
    variant: int
    steps: tuple[Step, ...]

    def without(self, start: int, end: int) -> Schedule:
        return Schedule(self.wall_ms, self.variant, self.steps[:start] + self.steps[end:])


@dataclass(frozen=True, slots=True)
class Failure:
    """`seed` draws the schedule again; `shortest` breaks an invariant too, which `words` say."""

    seed: int
    words: str
    shortest: Schedule

    def __str__(self) -> str:
        lines = "\n".join(f"    {step.kind} {step.seed}" for step in self.shortest.steps)
        return (
            f"seed {self.seed}: {self.words}\n"
            f"  shortest: wall_ms={self.shortest.wall_ms}, variant={self.shortest.variant}\n{lines}"
        )


def drawn(seed: int) -> Schedule:
    random = Random(seed)  # noqa: S311 (a test's choices)
    wall_ms = random.choice(STARTS) + random.randrange(20_000_000)
    variant = random.randrange(len(VARIANTS))
    return Schedule(wall_ms, variant, tuple(steps.draw(random, random.randint(12, 45))))


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


def run(schedule: Schedule, folder: Path, connect: Connect = inline) -> str | None:
    """What it breaks, or None."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        return asyncio.run(_run(schedule, Path(own), folder / "template.db", connect))


async def _run(schedule: Schedule, folder: Path, template: Path, connect: Connect) -> str | None:
    world = World(folder, template, schedule.wall_ms, connect)
    world.settings = VARIANTS[schedule.variant]
    number, step = 0, Step("start", 0)
    try:
        await world.prepare()
        await world.open_store()
        await world.build()
        invariants = Invariants(world)
        await invariants.check(ticked=True, whole=True)
        doing = Steps(world, lambda: invariants.check(ticked=False, whole=False))
        for number, step in enumerate(schedule.steps, 1):  # noqa: B007 (told in the report)
            await doing.do(step)
            await invariants.check(ticked=doing.ticked, whole=doing.whole)
        number, step = number + 1, Step("end", 0)
        await _end(world, invariants)
    except Violated as violated:
        return f"step {number} ({step.kind}): {violated}"
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what the schedule found)
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = "" if where is None else f" at {where.tb_frame.f_code.co_filename}:{where.tb_lineno}"
        return f"step {number} ({step.kind}): {type(error).__name__}: {error}{place}"
    finally:
        await world.close()
    return None


async def _end(world: World, invariants: Invariants) -> None:
    kernel = world.kernel
    kernel.failing_dumps, kernel.short_dump = 0, None
    kernel.failing_changes.clear()
    await world.bury()
    await world.open_store()
    await world.build()
    assert world.parts is not None
    for _ in range(2):
        await world.parts.ticker.tick()
        await invariants.check(ticked=world.parts.node.fault is None, whole=True)
    await invariants.final()


def shortened(schedule: Schedule, folder: Path) -> Schedule:
    """With as many steps left out as can be while it still breaks something."""
    runs, size = 0, len(schedule.steps) // 2
    while size and runs < SHORTENING_RUNS:
        start = 0
        while start < len(schedule.steps) and runs < SHORTENING_RUNS:
            shorter = schedule.without(start, start + size)
            runs += 1
            if run(shorter, folder) is None:
                start += size
            else:
                schedule = shorter
        size //= 2
    return schedule


def check(seeds: Sequence[int], folder: Path, most_failures: int = 5) -> tuple[int, int, list[Failure]]:
    """Runs the schedules of these seeds. Returns how many schedules and steps were run, and what they broke."""
    ran = done = 0
    failures: list[Failure] = []
    for seed in seeds:
        schedule = drawn(seed)
        ran, done = ran + 1, done + len(schedule.steps)
        if run(schedule, folder) is not None:
            shortest = shortened(schedule, folder)
            failures.append(Failure(seed, run(shortest, folder) or "not again: it depends on chance", shortest))
            if len(failures) >= most_failures:
                break
    return ran, done, failures
