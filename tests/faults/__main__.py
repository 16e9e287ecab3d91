"""`python -m tests.faults --schedules 10000 --seed 1`: many schedules, on all processors."""

from __future__ import annotations

import os
import secrets
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import click

from tests.faults import schedules

BATCH = 50


def _batch(seeds: range) -> tuple[int, int, list[schedules.Failure]]:
    with schedules.workplace() as folder:
        return schedules.check(seeds, folder)


@click.command()
@click.option("--schedules", "many", default=10_000, show_default=True)
@click.option("--seed", type=int, help="Of the first schedule, the next ones count up; left out: a random one.")
@click.option("--processes", default=os.cpu_count() or 1, show_default=True)
def main(many: int, seed: int | None, processes: int) -> None:
    """Run schedules of faults against the metering; exit status 1 when an invariant is broken."""
    first = secrets.randbelow(2**31) if seed is None else seed
    started = time.monotonic()
    batches = [range(start, min(start + BATCH, first + many)) for start in range(first, first + many, BATCH)]
    ran = steps = 0
    failures: list[schedules.Failure] = []
    with ProcessPoolExecutor(processes) as pool:
        for batch_ran, batch_steps, batch_failures in pool.map(_batch, batches):
            ran, steps, failures = ran + batch_ran, steps + batch_steps, failures + batch_failures
            for failure in batch_failures:
                click.echo(failure)
    took = time.monotonic() - started
    click.echo(f"{ran} schedules, {steps} steps, seed {first}, {took:.0f} s, {len(failures)} broke an invariant")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
