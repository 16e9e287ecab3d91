"""Asks the kernel whether the system clock is synchronised."""

from __future__ import annotations

import ctypes

TIME_ERROR = 5  # linux/timex.h
SIZE = 512  # struct timex has 208 bytes; all zero, it only queries


def synchronised() -> bool:
    """Tells whether a time service keeps the clock synchronised: adjtimex(2).

    The kernel reports it as unsynchronised until a time service sets it, and again when that service stops.
    """
    timex = ctypes.create_string_buffer(SIZE)
    return bool(ctypes.CDLL(None).adjtimex(timex) != TIME_ERROR)
