"""Opens the standard streams that the caller has closed: else the next file that is opened would get their numbers."""

from __future__ import annotations

import io
import os
import sys


def open_closed() -> None:
    """Makes input empty, errors go nowhere, and writing a result fail, as it must where it would be lost."""
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = os.fdopen(0)
    if sys.stdout is None:
        sys.stdout = _unbuffered(1)
    if sys.stderr is None:
        sys.stderr = _unbuffered(2)


def _unbuffered(number: int) -> io.TextIOWrapper:
    """Opens a stream that keeps nothing back: what cannot be written would be tried once more at exit."""
    return io.TextIOWrapper(io.FileIO(number, "w"), "utf-8", "backslashreplace", write_through=True)
