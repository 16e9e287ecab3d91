"""`python -m tests.faults.fleet --faults 500`: a fleet's hub has folded what its exits have counted, whatever fails.

Three exits, each a process with the real store, meter and sessions over a tunnel in a file; a hub's fold, and the real
nats-server. Processes are killed, connections fall silent, streams and stores are wiped or put back as they once were.

With `--hubs 2` they are whole hosts, a hub, its standby and a spoke: the standby is promoted again and again, while
accounts and tokens are changed on whichever host is the hub; in the end all hosts agree, too. With `--hubs 3` they are
three hubs and a spoke, of which one fails after the other, and another hub leads by itself.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Protocol

import click

from tests.support.fleet.cluster_faults import clustered_fleet
from tests.support.fleet.promotion_faults import promoted_fleet
from tests.support.fleet.report_faults import faulty_fleet

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

LONGEST_PAUSE_S = 0.6


class Done(Protocol):
    """Says what was done, as a text."""

    @property
    def faults(self) -> Counter[str]: ...


class FaultyHosts(Protocol):
    """Makes faults, and compares; raises Violated."""

    @property
    def done(self) -> Done: ...

    async def fault(self) -> None: ...

    async def compare(self) -> None: ...


LAYOUTS: dict[int, Callable[[Path, Random], AbstractAsyncContextManager[FaultyHosts]]] = {
    1: faulty_fleet,
    2: promoted_fleet,
    3: clustered_fleet,
}


async def _run(many: int, seed: int, folder: Path, hubs: int) -> Done:
    random = Random(seed)  # noqa: S311 (a test's choices)
    async with LAYOUTS[hubs](folder, random) as fleet:
        await asyncio.sleep(1)
        while fleet.done.faults.total() < many:
            await fleet.fault()
            await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_S))
        await fleet.compare()
        return fleet.done


def run(many: int, seed: int, hubs: int = 1) -> Done:
    """Raises Violated if the fold is not what was counted; the folder is kept then."""
    folder = Path(tempfile.mkdtemp(prefix="fleet-"))
    try:
        done = asyncio.run(_run(many, seed, folder, hubs))
    except BaseException as error:
        error.add_note(f"seed {seed}; what is left is in {folder}")
        raise
    shutil.rmtree(folder)
    return done


@click.command()
@click.option("--faults", "many", default=500, show_default=True)
@click.option("--seed", type=int, help="Of the choices and the delays; left out: a random one.")
@click.option("--hubs", type=click.Choice([str(each) for each in LAYOUTS]), default="1", show_default=True)
def main(many: int, seed: int | None, hubs: str) -> None:
    """Make faults in a fleet and compare what its hub knows; exit status 1 when a byte is lost or doubled."""
    seed = secrets.randbelow(2**31) if seed is None else seed
    began = time.monotonic()
    done = run(many, seed, int(hubs))
    click.echo(f"seed {seed}: {done}; {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
