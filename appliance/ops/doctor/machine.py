"""Checks the machine's clock and disk. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain import clock_steps
from appliance.domain.clock import rfc3339
from appliance.ops.doctor.finding import Finding, failed, ok, unseen, warning

if TYPE_CHECKING:
    from appliance.ops.doctor.facts import Facts

MIB = 1024 * 1024
LITTLE, TOO_LITTLE = 512 * MIB, 64 * MIB
FEW_INODES = 1000
MAKE_ROOM = "journalctl --vacuum-size=100M; apt-get clean; du -xh / | sort -h | tail -n 20"


def clock(facts: Facts) -> Finding:
    synchronised, served = facts.machine.clock_synchronised, facts.state is not None and facts.state.served
    store = None if facts.state is None else facts.state.store
    known, now = None if store is None else store.known, facts.machine.now
    ahead_ms = 0 if known is None else clock_steps.contradiction_ms(known, now)
    if known is not None and ahead_ms and (served or not synchronised):
        why = "the server cannot learn that it is synchronised" if synchronised else "nothing synchronises it"
        goes_on = rfc3339(clock_steps.expected(known, now).wall_ms)
        return warning(
            "clock",
            f"the wall clock is {clock_steps.in_words(ahead_ms)} what the boot clock and the last heartbeat say, and "
            f"{why}: sessions and history go by {goes_on}",
            clock_steps.ACCEPT if synchronised else f"{clock_steps.SYNCHRONISE}; if it is right: {clock_steps.ACCEPT}",
        )
    if synchronised:
        return ok("clock", "synchronised")
    return warning(
        "clock",
        "no time service keeps it synchronised: sessions and windows end at the wrong time",
        f"apt-get install systemd-timesyncd && {clock_steps.SYNCHRONISE}",
    )


def disk(facts: Facts) -> Finding:
    space, place = facts.machine.disk, facts.settings.node.state_dir
    if space is None:
        return unseen("disk", f"the file system of {place}")
    if space.read_only:
        return failed(
            "disk",
            f"the file system of {place} is read-only",
            f"mount -o remount,rw $(df --output=target {place} | tail -n 1)",
        )
    free = f"{space.free // MIB} MiB of {space.total // MIB} MiB are free for {place}"
    if space.free < TOO_LITTLE:
        return failed("disk", f"only {free}: sessions cannot be stored when it is full", MAKE_ROOM)
    if space.free_inodes is not None and space.free_inodes < FEW_INODES:
        return failed("disk", f"only {space.free_inodes} more files fit on the file system of {place}", "df -i")
    if space.free < LITTLE:
        return warning("disk", f"only {free}", MAKE_ROOM)
    return ok("disk", free)
