"""A port of a namespace that another program has."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.tunnel.namespace import Namespace

_HOLD = """
import socket, sys, time
kind, port = sys.argv[1:]
held = socket.socket(type=getattr(socket, kind))
held.bind(("", int(port)))
if kind == "SOCK_STREAM":
    held.listen()
print(flush=True)
time.sleep(600)
"""


@contextmanager
def held_port(space: Namespace, kind: str, port: int) -> Iterator[None]:
    """`kind`: SOCK_STREAM or SOCK_DGRAM; on all IPv4 addresses."""
    other = space.start(sys.executable, "-c", _HOLD, kind, str(port), stdout=subprocess.PIPE)
    assert other.stdout is not None
    with other, other.stdout:
        try:
            other.stdout.readline()
            yield
        finally:
            other.kill()
