"""A network namespace for one test: enter it with this thread, or run a command in it.

A thread's network namespace is its own, and a thread or process it starts begins in it. So a test that enters
one has its tunnels' threads and their wireguard-go in there with it.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# For a new namespace. The kernel copies IPv4's settings from the host (net.core.devconf_inherit_init_net), which may be
# a router.
SET_UP = ("sh", "-c", "ip link set lo up && echo 0 > /proc/sys/net/ipv4/ip_forward")

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A named network namespace with loopback up, which forwards nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside, and back where it was afterwards."""
        with (
            Path("/proc/thread-self/ns/net").open("rb") as outside,
            Path(f"/run/netns/{self.name}").open("rb") as inside,
        ):
            _setns(inside.fileno())
            try:
                yield
            finally:
                _setns(outside.fileno())

    def run(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command inside; its output is captured, so it must leave no child that holds it."""
        inside = ["ip", "netns", "exec", self.name, *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=timeout, check=False)


@contextmanager
def new_namespace() -> Iterator[Namespace]:
    """Made with a name nobody has, removed whatever happens. What still runs in it keeps it alive, nameless."""
    space = Namespace(f"wgc-{secrets.token_hex(4)}")
    subprocess.run(["ip", "netns", "add", space.name], check=True, timeout=60)
    try:
        space.run(*SET_UP)
        yield space
    finally:
        subprocess.run(["ip", "netns", "del", space.name], check=True, timeout=60)


def _setns(fd: int) -> None:
    # os.setns() comes with Python 3.12.
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
