"""Gives a process namespaces of its own, so that tests beside each other share nothing of the host.

Of its own are the network with loopback (ports, firewall, sysctls, tracked connections), and the directories of named
namespaces, of wireguard-go and of `connect`: what is left there goes when the process has gone.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

from tests.support.netns import SET_UP

DIRECTORIES = {"/run/netns": "755", "/run/wireguard": "755", "/run/wg-appliance-client": "700"}
_CLONE_NEWNS = 0x00020000  # linux/sched.h
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def enter_own_host() -> None:
    """For this thread, and for what it starts from now on. Without root, nothing changes: such tests touch no host."""
    if os.geteuid() != 0:
        return
    # os.unshare() comes with Python 3.12.
    if _libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    _run("mount", "--make-rprivate", "/")
    for directory, mode in DIRECTORIES.items():
        Path(directory).mkdir(mode=int(mode, 8), exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"mode={mode}", "none", directory)
    _run(*SET_UP)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=60)
