"""Lets one process at a time work, by a lock on a folder itself: it ends with the process and leaves no file."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def locked(folder: Path, otherwise: str) -> Iterator[None]:
    """Holds the folder's lock. Raises HostError with the message `otherwise` while another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError(otherwise) from error
        yield
    finally:
        os.close(descriptor)
