"""Checks the machine's clock and disk. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.ops.doctor.finding import Finding, failed, ok, unseen, warning

if TYPE_CHECKING:
    from appliance.ops.doctor.facts import Facts

MIB = 1024 * 1024
LITTLE, TOO_LITTLE = 512 * MIB, 64 * MIB
FEW_INODES = 1000
MAKE_ROOM = "journalctl --vacuum-size=100M; apt-get clean; du -xh / | sort -h | tail -n 20"


def clock(facts: Facts) -> Finding:
    if facts.machine.clock_synchronised:
        return ok("clock", "synchronised")
    return warning(
        "clock",
        "no time service keeps it synchronised: sessions and windows end at the wrong time",
        "apt-get install systemd-timesyncd && timedatectl set-ntp true",
    )


def disk(facts: Facts) -> Finding:
    found, place = facts.machine.disk, facts.settings.node.state_dir
    if found is None:
        return unseen("disk", f"the file system of {place}")
    if found.read_only:
        return failed(
            "disk",
            f"the file system of {place} is read-only",
            f"mount -o remount,rw $(df --output=target {place} | tail -n 1)",
        )
    free = f"{found.free // MIB} MiB of {found.total // MIB} MiB are free for {place}"
    if found.free < TOO_LITTLE:
        return failed("disk", f"only {free}: sessions cannot be stored when it is full", MAKE_ROOM)
    if found.free_inodes is not None and found.free_inodes < FEW_INODES:
        return failed("disk", f"only {found.free_inodes} more files fit on the file system of {place}", "df -i")
    if found.free < LITTLE:
        return warning("disk", f"only {free}", MAKE_ROOM)
    return ok("disk", free)
