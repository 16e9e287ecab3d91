"""Whether somebody keeps the system clock right, as the kernel knows it."""

from __future__ import annotations

import ctypes

TIME_ERROR = 5  # linux/timex.h
SIZE = 512  # struct timex has 208 bytes; zeroed, it asks and sets nothing


def synchronised() -> bool:
    """adjtimex(2): it counts as unsynchronised until a time service sets it, and again when that falls silent."""
    timex = ctypes.create_string_buffer(SIZE)
    return bool(ctypes.CDLL(None).adjtimex(timex) != TIME_ERROR)
