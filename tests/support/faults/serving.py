"""A real exit that serves, for as long as a block runs."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.faults.real_exit import real_exit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.faults.real_exit import RealExit


@contextmanager
def serving(backend: str, **settings: str) -> Iterator[RealExit]:
    """Ready, in a folder of its own; its log goes with a failure. `settings`: METER_RETENTION="2s", for example."""
    # Not pytest's folders: their paths are too long for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="exit-") as folder, real_exit(Path(folder), backend) as exit_:
        exit_.environment |= {f"WG_APPLIANCE_{name}": value for name, value in settings.items()}
        exit_.command("init")
        exit_.launch()
        try:
            exit_.await_ready()
            yield exit_
            exit_.stop()
        except Exception as error:
            error.add_note(exit_.last_words())
            raise
