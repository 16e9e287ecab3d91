"""A program: `python -m tests.kernel.alive COMMAND...` gives back what the command prints, line by line, and a line of
its own whenever nothing was printed for a while. Its status is the command's.

A kernel that hangs says nothing, and no limit of time inside it holds any more.
"""

from __future__ import annotations

import subprocess
import sys
from queue import Empty, SimpleQueue
from threading import Thread

EVERY_S = 10
LINE = "alive"


def run(command: list[str]) -> int:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        lines = SimpleQueue[bytes]()
        Thread(target=_read, args=(process, lines), daemon=True).start()
        while line := _next(lines):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        return process.wait()


def _read(process: subprocess.Popen[bytes], lines: SimpleQueue[bytes]) -> None:
    """To its end, which is an empty line."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(b"")


def _next(lines: SimpleQueue[bytes]) -> bytes:
    try:
        return lines.get(timeout=EVERY_S)
    except Empty:
        return f"{LINE}\n".encode()


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
