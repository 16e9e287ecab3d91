"""What processes did to their files and sockets, in the order in which it happened, as strace saw it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

TRACED = (
    *("openat", "link", "linkat", "unlink", "unlinkat", "rename", "renameat", "renameat2"),
    *("write", "writev", "pwrite64", "pwritev", "ftruncate", "fallocate", "fsync", "fdatasync", "sendto", "sendmsg"),
)
# The traced process stays its starter's own child (-D). What it executes, wireguard-go, is let go (-b).
STRACE = ("strace", "-D", "-f", "-b", "execve", "-q", "-y", "-xx", "-s", "1000000", "-e", f"trace={','.join(TRACED)}")
_HEX = re.compile(r"(?:\\x[0-9a-f]{2})+")
_CURRENT_FOLDER = re.compile(r"AT_FDCWD<[^>]*>, ")


@dataclass(frozen=True)
class Call:
    """`path`: the file descriptor's, or the first one named. `strings`: those after it, paths or data.

    `rest`: all that is no string. `number`: the last one, which is where pwrite64 writes and how long ftruncate makes.
    """

    name: str
    path: str
    strings: Sequence[bytes]
    rest: str
    number: int


@dataclass(frozen=True)
class Event:
    """A call begins, or, `done`, has succeeded. A failed one is never done."""

    call: Call
    done: bool


class Tracer:
    """Makes the command lines to run processes under, and reads what became of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs: list[Path] = []

    def command(self) -> list[str]:
        self._logs.append(self._folder / f"trace{len(self._logs)}")
        return [*STRACE, "-o", str(self._logs[-1])]

    def events(self) -> Iterator[Event]:
        """Of all processes in the order of their starts. They have ended; strace may be a little behind."""
        for log in self._logs:
            until(lambda log=log: _ended(log), f"strace has written {log}")
            with log.open(encoding="ascii") as lines:
                yield from _events(lines)


def _ended(log: Path) -> bool:
    """The process, whose id comes first, outlives all of its threads."""
    lines = log.read_bytes()
    last = lines[lines.rfind(b"\n", 0, -1) + 1 :]
    return last.endswith(b" +++\n") and last.split()[0] == lines.split(maxsplit=1)[0]


def _events(lines: Iterator[str]) -> Iterator[Event]:
    """A call during which another thread's was seen has two lines."""
    unfinished: dict[str, Call] = {}
    for line in lines:
        thread, text = line.split(maxsplit=1)
        if text.startswith(("+++", "---")):
            continue
        if text.startswith("<... "):
            call = unfinished.pop(thread)
        else:
            call = _call(text)
            yield Event(call, done=False)
        if text.endswith("<unfinished ...>\n"):
            unfinished[thread] = call
        elif re.match(r" += \d", text.rpartition(")")[2]):
            yield Event(call, done=True)


def _call(text: str) -> Call:
    """Of `pwrite64(7<\\x2f...>, "\\x0d...", 4096, 8192) = 4096`, with or without the result."""
    name, _, arguments = text.partition("(")
    arguments = _CURRENT_FOLDER.sub("", arguments.partition(" = ")[0])
    path, *strings = [bytes.fromhex(found.replace("\\x", "")) for found in _HEX.findall(arguments)] or [b""]
    rest = _HEX.sub("", arguments)
    numbers = re.findall(r"\b\d+\b", rest)
    return Call(name, path.decode(errors="replace"), strings, rest, int(numbers[-1]) if numbers else 0)
