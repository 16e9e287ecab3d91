"""`python -m tests.faults.escrow --schedules 10000`: exits that share limits never use more than the bound says.

A model of the fleet around the real decisions of both sides: `tests/support/fleet/escrow_model.py`.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import click

from tests.support.fleet.escrow_model import Broken, run, usable

BATCH = 100


@dataclass(slots=True)
class Found:
    """What schedules came to. `worst`: the largest use, in parts of the limit, by what holds when cut off."""

    schedules: int = 0
    over: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    least: float = 1.0

    def add(self, other: Found) -> None:
        self.schedules += other.schedules
        self.over += other.over
        self.done += other.done
        self.worst = {
            mode: max(self.worst.get(mode, 0), other.worst.get(mode, 0)) for mode in {*self.worst, *other.worst}
        }
        self.least = min(self.least, other.least)


def search(first: int, many: int) -> Found:
    """Runs schedules by their seeds, and as many of a fleet in which all is well."""
    found = Found(many)
    for seed in range(first, first + many):
        try:
            model = run(seed)
        except Broken as error:
            found.over.append(f"seed {seed}: {error}")
            continue
        mode = "strict" if model.strict else "share"
        found.worst[mode] = max(found.worst.get(mode, 0), *model.worst)
        found.done += model.done
        if seed % BATCH == 0:
            found.least = min(found.least, usable(seed))
    return found


@click.command()
@click.option("--schedules", "many", default=10_000, show_default=True)
@click.option("--seed", type=int, help="Of the first schedule, the next ones count up; left out: a random one.")
@click.option("--processes", default=os.cpu_count() or 1, show_default=True)
def main(many: int, seed: int | None, processes: int) -> None:
    """Run schedules of faults in a fleet that shares limits; exit status 1 when more is used than the bound."""
    first = secrets.randbelow(2**31) if seed is None else seed
    began, total = time.monotonic(), Found()
    sizes = [min(BATCH, many - done) for done in range(0, many, BATCH)]
    with ProcessPoolExecutor(processes) as pool:
        for found in pool.map(search, range(first, first + many, BATCH), sizes):
            total.add(found)
    click.echo("\n".join(total.over[:5]))
    click.echo(
        f"{total.schedules} schedules, {len(total.over)} over the bound; most used of a limit {total.worst}; "
        f"least usable with all connected {total.least:.3f}; {dict(total.done)}; "
        f"seed {first}, {time.monotonic() - began:.0f} s"
    )
    sys.exit(1 if total.over else 0)


if __name__ == "__main__":
    main()
