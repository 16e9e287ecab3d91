"""A program: `under_filter.py UNIT COMMAND...` runs the command under the unit's SystemCallFilter= and
RestrictAddressFamilies=, where no systemd can be booted to do it. The caller has set no-new-privs.

The filter is libseccomp's, which is systemd's too; what is in a group is asked of `systemd-analyze`. Only what our
units say is understood (systemd.exec(5) knows more), and anything else ends it.
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
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
EQUAL, AT_LEAST = 4, 5
UNKNOWN = -1

FAMILIES = 64  # more than there are
SECCOMP = ctypes.CDLL("libseccomp.so.2")
SECCOMP.seccomp_init.restype = ctypes.c_void_p


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = (("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class Filter:
    def __init__(self, otherwise: int) -> None:
        self._context = ctypes.c_void_p(SECCOMP.seccomp_init(otherwise))

    def rule(self, action: int, number: int, *comparisons: Comparison) -> None:
        array = (Comparison * len(comparisons))(*comparisons)
        code = SECCOMP.seccomp_rule_add_array(self._context, action, number, len(array), array)
        # EDOM: a system call of other processors.
        if code not in (0, -errno.EDOM):
            sys.exit(f"seccomp_rule_add_array, system call {number}: {os.strerror(-code)}")

    def load(self) -> None:
        if code := SECCOMP.seccomp_load(self._context):
            sys.exit(f"seccomp_load: {os.strerror(-code)}")


def number_of(name: str) -> int:
    return int(SECCOMP.seccomp_syscall_resolve_name(name.encode()))


def values(unit: Path, key: str) -> list[str]:
    lines = unit.read_text(encoding="utf-8").splitlines()
    found = [value.strip() for name, _, value in (line.partition("=") for line in lines) if name.strip() == key]
    if not found or not all(found) or any(":" in value or value.endswith("\\") for value in found):
        sys.exit(f"{unit}: {key}={found} is not understood")
    return found


def in_group(group: str) -> set[str]:
    """The names of its system calls, some of which libseccomp may not know yet."""
    command = ("systemd-analyze", "--no-pager", "syscall-filter", group)
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = set[str]()
    for name in filter(None, (line.strip() for line in listing.splitlines()[1:])):
        if not name.startswith("#"):
            found |= in_group(name) if name.startswith("@") else {name}
    return found


def system_calls(words: str) -> set[str]:
    found = set[str]()
    for word in words.split():
        if not word.startswith("@") and number_of(word) == UNKNOWN:
            sys.exit(f"there is no system call {word}")
        found |= in_group(word) if word.startswith("@") else {word}
    return found


def allowed(lines: list[str]) -> set[str]:
    """The first line allows, and one with a tilde takes away."""
    if lines[0].startswith("~"):
        sys.exit("a list of what is denied is not understood")
    found = in_group("@default")
    for line in lines:
        if line.startswith("~"):
            found -= system_calls(line.removeprefix("~"))
        else:
            found |= system_calls(line)
    return found


def restrict_address_families(names: list[str]) -> None:
    allowed_ones = {int(getattr(socket, name)) for name in names}
    families = Filter(ALLOW)
    denied, call = ERRNO | errno.EAFNOSUPPORT, number_of("socket")
    for family in set(range(FAMILIES)) - allowed_ones:
        families.rule(denied, call, Comparison(0, EQUAL, family))
    families.rule(denied, call, Comparison(0, AT_LEAST, FAMILIES))
    families.load()


def restrict_system_calls(names: set[str], error: str) -> None:
    calls = Filter(ERRNO | int(getattr(errno, error)))
    for number in {number_of(name) for name in names} - {UNKNOWN}:
        calls.rule(ALLOW, number)
    calls.load()


if __name__ == "__main__":
    unit, command = Path(sys.argv[1]), sys.argv[2:]
    names = allowed(values(unit, "SystemCallFilter"))
    (error,) = values(unit, "SystemCallErrorNumber")
    # Before the other one, which may leave no way to load it.
    restrict_address_families(" ".join(values(unit, "RestrictAddressFamilies")).split())
    restrict_system_calls(names, error)
    os.execvp(command[0], command)  # noqa: S606 (to be that process, without a shell, is what it is for)
