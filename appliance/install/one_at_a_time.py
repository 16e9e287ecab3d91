"""Install, upgrade and uninstall keep out of each other's way."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from appliance.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.install.layout import Layout


@contextmanager
def one_at_a_time(layout: Layout) -> Iterator[None]:
    """Raises HostError while another one works. The lock goes with the process, and leaves no file."""
    folder = layout.programs.parent  # every host has it
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError("another install, upgrade or uninstall is at work here: try again later") from error
        yield
    finally:
        os.close(descriptor)
