"""`python -m tests.faults --schedules 10000 --seed 1`: many schedules, on all processors."""

from __future__ import annotations

import os
import secrets
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor

import click

from tests.support.faults import schedules
from tests.support.faults.searching import Ran, search

BATCH = 100


def _batch(many: int, seed: int) -> Ran | str:
    """What it ran, or how it broke."""
    with schedules.workplace() as folder:
        try:
            return search(many, seed, folder)
        except Exception:  # noqa: BLE001 (whatever it is, it is what the search found)
            return traceback.format_exc(limit=-4)


@click.command()
@click.option("--schedules", "many", default=10_000, show_default=True)
@click.option("--seed", type=int, help="Of the first hundred, the next ones count up; left out: a random one.")
@click.option("--processes", default=os.cpu_count() or 1, show_default=True)
def main(many: int, seed: int | None, processes: int) -> None:
    """Run schedules of faults against the metering; exit status 1 when an invariant is broken."""
    first = secrets.randbelow(2**31) if seed is None else seed
    started = time.monotonic()
    sizes = [min(BATCH, many - done) for done in range(0, many, BATCH)]
    total, broken = Ran(), 0
    with ProcessPoolExecutor(processes) as pool:
        for at, found in enumerate(pool.map(_batch, sizes, range(first, first + len(sizes)))):
            if isinstance(found, str):
                broken += 1
                click.echo(f"seed {first + at}:\n{found}")
            else:
                total.schedules += found.schedules
                total.steps += found.steps
    took = time.monotonic() - started
    click.echo(f"{total.schedules} schedules, {total.steps} steps, seed {first}, {took:.0f} s, {broken} searches broke")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
