"""Finds the programs that hold a UDP port, or listen on a TCP port, from procfs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = Path("/proc")
UNNAMED = "another process"
LISTEN = "0A"  # net/tcp_states.h


def holders(port: int, protocol: str = "udp") -> tuple[str, ...]:
    """Returns the names of the programs that hold the port, each once; "another process" if a name may not be read."""
    inodes = set(_inodes(port, protocol))
    if not inodes:
        return ()
    links = {f"socket:[{inode}]" for inode in inodes}
    names = {_name(process) for process in PROC.glob("[0-9]*") if links & set(_links(process))}
    return tuple(sorted(names)) or (UNNAMED,)


def _inodes(port: int, protocol: str) -> Iterator[str]:
    """Yields the inodes of sockets on the port. proc(5), /proc/net/udp: field 2 is the local address and port in hex,
    field 4 the state, field 10 the inode."""
    for table in (protocol, f"{protocol}6"):
        try:
            lines = (PROC / "self/net" / table).read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:  # no IPv6 here
            continue
        for fields in map(str.split, lines):
            if int(fields[1].rpartition(":")[2], 16) == port and (protocol == "udp" or fields[3] == LISTEN):
                yield fields[9]


def _links(process: Path) -> Iterator[str]:
    try:
        for descriptor in (process / "fd").iterdir():
            yield str(descriptor.readlink())
    except OSError:
        return  # the process has ended, or is another user's


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return UNNAMED
