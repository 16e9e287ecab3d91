"""Names a process by /proc, for messages."""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")
_LONGEST = 80  # characters


def describe(pid: int) -> str | None:
    """Returns what a process runs and which process started it; None if it has ended, or may not be seen."""
    try:
        command = _command(pid)
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if not command:
        return None
    # proc(5): the name, in parentheses, may contain spaces.
    parent = int(stat.rpartition(")")[2].split()[1])
    try:
        starter = f", started by {_command(parent)} (process {parent})" if parent > 1 else ""
    except OSError:
        starter = ""
    return f"{command} (process {pid}){starter}"


def _command(pid: int) -> str:
    words = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    text = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
