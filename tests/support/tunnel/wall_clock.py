"""A wall clock that a test may set: an emulated kernel's own, or one that the program under test is shown.

There is one wall clock for all network namespaces, so a machine's own is never set. Where the tests run under user-mode
Linux, the clock is that process's. Elsewhere a preloaded library answers the program in the kernel's place.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SHOWN = """
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long told(int which)
{
    long values[2] = {0, 5};
    FILE *file = fopen(getenv("SHOWN_CLOCK"), "re");
    if (file != NULL) {
        if (fscanf(file, "%ld %ld", &values[0], &values[1]) != 2) values[0] = 0;
        fclose(file);
    }
    return values[which];
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    int done = (int)syscall(SYS_clock_gettime, clock, at);
    if (done == 0 && clock == CLOCK_REALTIME) at->tv_sec += told(0);
    return done;
}

int adjtimex(void *timex) { (void)timex; return (int)told(1); }
"""
TIME_OK, TIME_ERROR = 0, 5  # linux/timex.h
_ADJ_MAXERROR, _ADJ_ESTERROR, _ADJ_STATUS, _STA_PLL = 0x4, 0x8, 0x10, 0x1


class WallClock(Protocol):
    """`environment`: of the programs that are to go by it."""

    environment: Mapping[str, str]

    def step(self, seconds: int) -> None:
        """Set it, as `date -s` does: it is not synchronised from then on."""

    def synchronise(self) -> None:
        """Say that it is right, as a time service does."""

    def put_back(self) -> None:
        """Let it say what it said before, but for the time since."""


class ShownClock:
    def __init__(self, folder: Path) -> None:
        source, library = folder / "shown_clock.c", folder / "shown_clock.so"
        source.write_text(_SHOWN, encoding="ascii")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=120)
        self._told = folder / "shown_clock"
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "SHOWN_CLOCK": str(self._told)}
        self._ahead_s = 0
        self.put_back()

    def step(self, seconds: int) -> None:
        self._ahead_s += seconds
        self._tell(TIME_ERROR)

    def synchronise(self) -> None:
        self._tell(TIME_OK)

    def put_back(self) -> None:
        self.step(-self._ahead_s)

    def _tell(self, answer: int) -> None:
        new = self._told.with_suffix(".new")
        new.write_text(f"{self._ahead_s} {answer}", encoding="ascii")
        new.replace(self._told)


class EmulatedClock:
    def __init__(self) -> None:
        assert is_emulated(), "this machine's own clock is not a test's to set"
        self.environment: Mapping[str, str] = {}
        self._ahead_s = 0

    def step(self, seconds: int) -> None:
        self._ahead_s += seconds
        time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)

    def synchronise(self) -> None:
        # struct timex: modes, offset, freq, maxerror, esterror, status; the rest is not read with these modes.
        head = struct.pack("@I4xqqqqi", _ADJ_STATUS | _ADJ_MAXERROR | _ADJ_ESTERROR, 0, 0, 0, 0, _STA_PLL)
        timex = ctypes.create_string_buffer(head, 512)
        assert ctypes.CDLL(None).adjtimex(timex) == TIME_OK

    def put_back(self) -> None:
        self.step(-self._ahead_s)


def is_emulated() -> bool:
    """Whether this is user-mode Linux: a kernel that is a process, with a clock of its own."""
    return "User Mode Linux" in Path("/proc/cpuinfo").read_text(encoding="utf-8")


@contextmanager
def wall_clock(folder: Path) -> Iterator[WallClock]:
    clock: WallClock = EmulatedClock() if is_emulated() else ShownClock(folder)
    try:
        yield clock
    finally:
        clock.put_back()
