"""Reads from /proc what processes have used: processor time, memory, and what they wrote."""

from __future__ import annotations

import os
import re
from pathlib import Path

TICKS_S = os.sysconf("SC_CLK_TCK")


def busy_s(pid: int) -> float:
    """Returns the processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def memory_mb(what: str, pid: int | None = None) -> float:
    """Returns `VmRSS`, or `VmHWM`, the most it has been; of this process if none is named."""
    status = Path(f"/proc/{pid or 'self'}/status").read_text(encoding="utf-8")
    found = re.search(rf"^{what}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, status
    return int(found[1]) * 1024 / 1e6


def written_mb(pid: int | None = None) -> float:
    """Returns what the process has had written to disks (proc(5), write_bytes)."""
    lines = Path(f"/proc/{pid or 'self'}/io").read_text(encoding="ascii")
    return int(lines.partition("\nwrite_bytes: ")[2].split()[0]) / 1e6
