"""Names a process by /proc, for messages."""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")
_LONGEST = 80  # characters


def describe(pid: int) -> str | None:
    """Returns what a process runs and which process started it; None if it has ended, or may not be seen.

    Of the other process only the name: its arguments may hold secrets.
    """
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        _, parent = _stat(pid)
    except OSError:
        return None
    command = _printable(words)
    if not command:
        return None
    try:
        starter = f", started by {_stat(parent)[0]} (process {parent})" if parent > 1 else ""
    except OSError:
        starter = ""
    return f"{command[:_LONGEST]} (process {pid}){starter}"


def _stat(pid: int) -> tuple[str, int]:
    """Returns the process's name and its parent. proc(5): the name is in parentheses, and may contain such."""
    head, _, rest = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
    return _printable(head.partition("(")[2]), int(rest.split()[1])


def _printable(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
