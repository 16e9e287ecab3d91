"""Swaps the files of a state directory for links to another's, back and forth, until it is ended.

python -m tests.support.cli.swaps_files STATE VICTIM UID GID NAME...
"""

from __future__ import annotations

import itertools
import os
import sys
from contextlib import suppress
from pathlib import Path


def main(state: Path, victim: Path, uid: int, gid: int, names: list[str]) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    print("swapping", flush=True)  # noqa: T201 (the test waits for it)
    for name in itertools.cycle(names):
        real, aside = state / name, state / f".{name}.aside"
        with suppress(OSError):
            real.rename(aside)
        with suppress(OSError):
            real.symlink_to(victim / name)
        with suppress(OSError):
            real.unlink()
        with suppress(OSError):
            aside.rename(real)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
