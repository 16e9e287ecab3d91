"""A program: `under_filter.py UNIT COMMAND...` runs the command under the unit's filter of system calls, as systemd
would. For where no systemd can be booted.

It reads SystemCallFilter= and RestrictAddressFamilies= of the unit, and what a group is from `systemd-analyze`. The
filter is libseccomp's, which systemd itself takes. The caller has dropped its capabilities and set no-new-privs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

# seccomp.h
ALLOW, DENY = 0x7FFF0000, 0x00050000 | errno.EPERM
EQUAL = 4
UNKNOWN = -1


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = (("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def values(unit: Path, key: str) -> list[str]:
    lines = unit.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix(f"{key}=") for line in lines if line.startswith(f"{key}=")]


def system_calls(names: list[str]) -> set[str]:
    """With every group replaced by what is in it."""
    found = set[str]()
    for name in names:
        if name.startswith("@"):
            listing = subprocess.run(
                ("systemd-analyze", "--no-pager", "syscall-filter", name), capture_output=True, text=True, check=True
            ).stdout
            lines = [line.strip() for line in listing.splitlines()[1:]]
            found |= system_calls([line for line in lines if line and not line.startswith("#")])
        else:
            found.add(name)
    return found


def allowed(filters: list[str]) -> set[str]:
    """The first line allows, and one with a tilde takes away (systemd.exec(5)). systemd itself executes the program."""
    found = system_calls(["@default", "execve"])
    for line in filters:
        if line.startswith("~"):
            found -= system_calls(line.removeprefix("~").split())
        else:
            found |= system_calls(line.split())
    return found


def load(names: set[str], families: list[str]) -> None:
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(DENY))
    for name in sorted(names):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number == UNKNOWN:
            continue  # of a newer kernel than libseccomp knows
        # One whose number is lower than -1 is of another processor: libseccomp passes it over, or says so.
        comparisons = [Comparison(0, EQUAL, getattr(socket, family)) for family in families]
        for rule in [[one] for one in comparisons] if name == "socket" else [[]]:
            code = seccomp.seccomp_rule_add_array(context, ALLOW, number, len(rule), (Comparison * len(rule))(*rule))
            if code not in (0, -errno.EDOM):
                sys.exit(f"seccomp_rule_add_array {name}: {os.strerror(-code)}")
    if code := seccomp.seccomp_load(context):
        sys.exit(f"seccomp_load: {os.strerror(-code)}")


if __name__ == "__main__":
    unit, command = Path(sys.argv[1]), sys.argv[2:]
    load(allowed(values(unit, "SystemCallFilter")), " ".join(values(unit, "RestrictAddressFamilies")).split())
    os.execvp(command[0], command)  # noqa: S606 (to be that process, without a shell, is what it is for)
