"""wg-appliance device: a command that leaves a device held says why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from appliance.domain.clock import HostClock

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiosqlite

    from tests.support.cli.command_line import CommandLine

LIMITS = 'public_ip = "192.0.2.1"\n[tiers.free]\nbytes_limit = 10\nmax_live_sessions = 1\n'


@pytest.fixture
def wga(wga: CommandLine) -> CommandLine:
    """An exit where alice, of the tier free, has a device."""
    with wga.config.open("a", encoding="utf-8") as config:
        config.write(LIMITS)
    wga.do("device", "add", "alice/my phone")
    return wga


def drained(wga: CommandLine) -> None:
    wga.do("node", "drain")


def disabled(wga: CommandLine) -> None:
    wga.do("account", "set", "alice", "--disabled")


def used_up(wga: CommandLine) -> None:
    async def used(db: aiosqlite.Connection) -> None:
        await db.execute("UPDATE accounts SET bytes_opened_at = ?, bytes_used = 10", (HostClock().now().wall_ms,))

    wga.write(used)


def another_is_live(wga: CommandLine) -> None:
    wga.open_session("alice", 9)


def paused(wga: CommandLine) -> None:
    wga.do("device", "pause", "alice/my phone")


QUOTA, LIMIT = (
    "its quota is used up until 20..-..-..T..:..:..Z",
    r"account alice has as many live sessions as it may \(.*",
)
DRAINED = r"the exit is drained \(wg-appliance node resume\)"


@pytest.mark.parametrize(
    ("comes", "command", "why"),
    [
        (drained, ("add", "alice/y"), DRAINED),
        (drained, ("resume", "alice/my phone"), DRAINED),
        (drained, ("rotate", "alice/my phone"), DRAINED),
        (used_up, ("add", "alice/y"), QUOTA),
        (used_up, ("resume", "alice/my phone"), QUOTA),
        (another_is_live, ("rotate", "alice/my phone"), LIMIT),
        (
            disabled,
            ("rotate", "alice/my phone"),
            r"account alice is disabled \(wg-appliance account set alice --enabled\)",
        ),
        (paused, ("rotate", "alice/my phone"), r"it is paused \(wg-appliance device resume 'alice/my phone'\)"),
        (paused, ("resume", "alice/my phone"), None),
        (paused, ("add", "alice/y"), None),
    ],
)
def test_what_keeps_it_from_connecting_is_said(
    wga: CommandLine, comes: Callable[[CommandLine], None], command: tuple[str, str], why: str | None
) -> None:
    """Last on stderr, after the change, and never where it may connect; the file is handed over all the same."""
    comes(wga)
    done = wga.do("device", *command)
    assert ("PrivateKey = " in done.out) == (command[0] != "resume")
    said = [line for line in done.err.splitlines() if "may not connect now" in line]
    if why is None:
        assert said == []
        return
    assert done.err.splitlines()[-1:] == said
    assert re.fullmatch(f"device {command[1]} may not connect now: {why}", said[0])
    assert wga.json("device", "show", command[1])["state"] in ("held", "paused")
