"""`python -m tests.faults.fleet --faults 500`: a fleet's hub has folded what its exits have counted, whatever fails.

Three exits, each a process with the real store, meter and sessions over a tunnel in a file; a hub's fold, and the real
nats-server. Processes are killed, connections fall silent, streams and stores are wiped or put back as they once were.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from random import Random

import click

from tests.support.fleet.report_faults import FaultsDone, faulty_fleet

LONGEST_PAUSE_S = 0.6


async def _run(many: int, seed: int, folder: Path) -> FaultsDone:
    random = Random(seed)  # noqa: S311 (a test's choices)
    async with faulty_fleet(folder, random) as fleet:
        await asyncio.sleep(1)
        while fleet.done.faults.total() < many:
            await fleet.fault()
            await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_S))
        await fleet.compare()
        return fleet.done


def run(many: int, seed: int) -> FaultsDone:
    """Raises Violated if the fold is not what was counted; the folder is kept then."""
    folder = Path(tempfile.mkdtemp(prefix="fleet-"))
    try:
        done = asyncio.run(_run(many, seed, folder))
    except BaseException as error:
        error.add_note(f"seed {seed}; what is left is in {folder}")
        raise
    shutil.rmtree(folder)
    return done


@click.command()
@click.option("--faults", "many", default=500, show_default=True)
@click.option("--seed", type=int, help="Of the choices and the delays; left out: a random one.")
def main(many: int, seed: int | None) -> None:
    """Make faults in a fleet and compare what its hub knows; exit status 1 when a byte is lost or doubled."""
    seed = secrets.randbelow(2**31) if seed is None else seed
    began = time.monotonic()
    done = run(many, seed)
    click.echo(f"seed {seed}: {done}; {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
