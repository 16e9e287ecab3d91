"""Which WireGuard this machine has for tests: the kernel's, or wireguard-go."""

from __future__ import annotations

import os
import secrets
import subprocess
from functools import cache

NO_ROOT = "NOT TESTED: tunnels need root (network namespaces)"


@cache
def kernel_makes_wireguard() -> bool:
    """Tried in a network namespace of its own, which goes with the command."""
    if os.geteuid() != 0:
        return False
    command = ["unshare", "--net", "ip", "link", "add", f"wgc{secrets.token_hex(4)}", "type", "wireguard"]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def backend_here() -> str | None:
    """`kernel` where the kernel makes WireGuard interfaces, `userspace` else; None without root."""
    if os.geteuid() != 0:
        return None
    return "kernel" if kernel_makes_wireguard() else "userspace"
