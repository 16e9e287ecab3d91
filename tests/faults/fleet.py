"""`python -m tests.faults.fleet --faults 500`: a fleet's hub has folded what its exits have counted, whatever fails.

Three exits, each a process with the real store, meter and sessions over a tunnel in a file; a hub's fold, and the real
nats-server. Processes are killed, connections fall silent, streams and stores are wiped or put back as they once were.

With `--hubs 2` they are whole hosts, a hub, its standby and a spoke: the standby is promoted again and again, while
accounts and tokens are changed on whichever host is the hub; all hosts agree, too. With `--hubs 3` they are three hubs
and a spoke, of which up to three fail at once, and another hub leads by itself.

After some faults all is healed and compared. With `--processes 2` there are two such fleets, which share the faults.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from functools import reduce
from operator import add
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Protocol

import click

from tests.support.fleet.cluster_faults import clustered_fleet
from tests.support.fleet.faults_done import FaultsDone
from tests.support.fleet.promotion_faults import promoted_fleet
from tests.support.fleet.report_faults import faulty_fleet

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

LONGEST_PAUSE_S = 0.6
BETWEEN = 20  # faults from one comparison to the next


class FaultyHosts(Protocol):
    """Makes faults, and compares; raises Violated."""

    @property
    def done(self) -> FaultsDone: ...

    async def fault(self) -> None: ...

    async def compare(self) -> None: ...


LAYOUTS: dict[int, Callable[[Path, Random], AbstractAsyncContextManager[FaultyHosts]]] = {
    1: faulty_fleet,
    2: promoted_fleet,
    3: clustered_fleet,
}


async def _run(many: int, seed: int, folder: Path, hubs: int) -> FaultsDone:
    """Returns what was done; if it is not as it should be, with the error, and all that is known of it, in `wrong`."""
    random = Random(seed)  # noqa: S311 (a test's choices)
    done = FaultsDone()
    try:
        async with LAYOUTS[hubs](folder, random) as fleet:
            done = fleet.done
            await asyncio.sleep(1)
            while (made := done.faults.total()) < many:
                for _ in range(min(BETWEEN, many - made)):
                    await fleet.fault()
                    await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_S))
                await fleet.compare()
                click.echo(f"seed {seed} so far: {done}", err=True)
    except Exception:  # noqa: BLE001 (it is printed)
        done.wrong.append(f"{traceback.format_exc()}seed {seed}; what is left is in {folder}")
    return done


def run(many: int, seed: int, hubs: int = 1) -> FaultsDone:
    """Runs one fleet. Its folder is kept where something is wrong."""
    folder = Path(tempfile.mkdtemp(prefix="fleet-"))
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")  # of hosts, which are started again and again
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    done = asyncio.run(_run(many, seed, folder, hubs))
    if not done.wrong:
        shutil.rmtree(folder)
    return done


@click.command()
@click.option("--faults", "many", default=500, show_default=True)
@click.option("--seed", type=int, help="Of the choices and the delays; left out: a random one. Other fleets: the next.")
@click.option("--hubs", type=click.Choice([str(each) for each in LAYOUTS]), default="1", show_default=True)
@click.option("--processes", default=1, show_default=True, help="How many fleets there are at the same time.")
def main(many: int, seed: int | None, hubs: str, processes: int) -> None:
    """Make faults in a fleet and compare what its hub knows; exit status 1 when a byte or a change is lost."""
    seed = secrets.randbelow(2**31) if seed is None else seed
    began = time.monotonic()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as fleets:
        shares = [many // processes + (number < many % processes) for number in range(processes)]
        running = [fleets.submit(run, share, seed + number, int(hubs)) for number, share in enumerate(shares)]
        done = reduce(add, (each.result() for each in running))
    took = time.monotonic() - began
    each_s = took / max(done.faults.total(), 1)
    click.echo(f"hubs {hubs}, seed {seed}, {processes} fleets: {done}; {took:.0f} s, {each_s:.1f} s a fault")
    if done.wrong:
        click.echo("\n".join(done.wrong), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
