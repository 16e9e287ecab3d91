"""All that an appliance may change on its host, a line each, to be compared before and after."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.install.machine import Machine

COMMANDS = (
    ("sysctl", "--all"),
    ("ip", "-oneline", "link"),
    ("ip", "-oneline", "address"),
    ("ip", "route", "show", "table", "all"),
    ("ip", "rule"),
    ("getent", "passwd"),
    ("getent", "group"),
    ("systemctl", "list-unit-files", "--no-legend", "--plain"),
    ("systemctl", "list-units", "--failed", "--no-legend", "--plain"),
)
# Counters, and what the host measures by itself.
MOVING = (
    "net.netfilter.nf_conntrack_count",
    "fs.dentry",
    "fs.file-nr",
    "fs.inode",
    "fs.quota.syncs",
    "kernel.ns_last_pid",
    "kernel.perf_event_max_sample_rate",
    "kernel.pty",
    "kernel.random",
)
# Of links that are made anew with each boot.
MADE_UP = re.compile(r"link/ether \S+|fe80::\S+|link-netnsid \S+|@if\d+")
# What runs, logs, caches, and what dpkg notes of packages that came and went.
ELSEWHERE = (
    *("proc", "sys", "run", "dev", "tmp", "root", "var/log", "var/tmp", "var/cache"),
    *("var/lib/systemd", "var/lib/apt", "var/lib/dpkg"),
)
# Rewritten whenever a user comes and goes: what is in them is compared by getent.
REWRITTEN = ("passwd", "passwd-", "group", "group-", "shadow", "shadow-", "gshadow", "gshadow-", "ld.so.cache")


def host_state(machine: Machine) -> set[str]:
    # nft may not be there: it is asked from outside.
    rules = machine.space.run("nft", "list", "ruleset").stdout
    lines = {f"nft: {line.strip()}" for line in rules.splitlines()}
    for command in COMMANDS:
        for line in machine.run(*command).stdout.splitlines():
            if not line.startswith(MOVING) and " lastuse " not in line:
                lines.add(f"{command[0]} {command[-1]}: {MADE_UP.sub('...', ' '.join(line.split()))}")
    return lines | set(_files(machine.root))


def require_unchanged(machine: Machine, before: set[str], but: str | None = None) -> None:
    """Nothing differs, but for lines with this in them."""
    after = host_state(machine)
    lines = [*(f"- {line}" for line in before - after), *(f"+ {line}" for line in after - before)]
    changed = sorted((line for line in lines if but is None or but not in line), key=lambda line: line[2:])
    assert not changed, "\n" + "\n".join(changed)


def _files(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        below = os.path.relpath(folder, root)
        folders[:] = [name for name in folders if os.path.normpath(f"{below}/{name}") not in ELSEWHERE]
        for name in (*folders, *files):
            path = os.path.normpath(f"{below}/{name}")
            if below == "etc" and name in REWRITTEN:
                continue
            found = os.lstat(f"{folder}/{name}")
            size = "" if stat.S_ISDIR(found.st_mode) else f", {found.st_size} bytes"
            yield f"file /{path}: {stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid}{size}"
