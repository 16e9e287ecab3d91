"""A service that may not ask the kernel whether its clock is synchronised asks timedated, of one setting at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from appliance.domain.believed_clock import BelievedClock
from appliance.server.time_service import ServiceClock, ask_timedated
from tests.support.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from pathlib import Path

YEAR = 365 * 86_400


class Sandboxed(VirtualClock):
    """The kernel may not be asked; timedated says what it knows, and counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = False
        self.asked = 0
        self.step_meanwhile = 0.0

    def kernel_synchronised(self) -> bool | None:
        return None

    def timedated(self) -> bool:
        self.asked += 1
        self.step(self.step_meanwhile)
        return self.kept


def look(clock: ServiceClock) -> None:
    """One round of its task."""

    async def once() -> None:
        stopping = asyncio.Event()
        task = asyncio.create_task(clock.run(stopping))
        await asyncio.sleep(0)
        stopping.set()
        await task

    asyncio.run(once())


def test_what_timedated_says_holds_for_the_clock_as_it_was_set_then() -> None:
    """A step is followed once timedated says that it is a time service's; the next step is not followed by that."""
    host = Sandboxed()
    clock = ServiceClock(host, host.timedated)  # type: ignore[arg-type]  # it answers what HostClock answers
    believed = BelievedClock(clock, host.now())
    host.step(YEAR)
    assert believed.now() != host.now()
    look(clock)
    assert believed.now() != host.now()
    host.kept = True
    look(clock)
    assert believed.now() == host.now()
    host.step(-YEAR)
    assert believed.now() != host.now()
    host.kept = False
    look(clock)
    assert believed.now() != host.now()


def test_it_is_asked_while_the_clock_is_doubted_alone() -> None:
    """A clock that goes as it should starts no program."""
    host = Sandboxed()
    clock = ServiceClock(host, host.timedated)  # type: ignore[arg-type]  # it answers what HostClock answers
    believed = BelievedClock(clock, host.now())
    for _ in range(3):
        believed.now()
        look(clock)
    assert host.asked == 0
    host.step(YEAR)
    believed.now()
    look(clock)
    look(clock)
    assert host.asked == 1


def test_a_step_while_it_is_asked() -> None:
    """The answer may be of the setting before: it is not taken for the one after."""
    host = Sandboxed()
    clock = ServiceClock(host, host.timedated)  # type: ignore[arg-type]  # it answers what HostClock answers
    believed = BelievedClock(clock, host.now())
    host.step(YEAR)
    believed.now()
    host.kept, host.step_meanwhile = True, YEAR
    look(clock)
    assert believed.now() != host.now()


@pytest.mark.parametrize(
    ("script", "synchronised"),
    [("echo yes", True), ("echo no", False), ("echo", False), ("echo yes; exit 1", False), ("exit 127", False)],
)
def test_timedated_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, *, synchronised: bool
) -> None:
    """timedatectl's word counts; without it, or D-Bus, nothing is known to synchronise."""
    program = tmp_path / "timedatectl"
    program.write_text(
        f'#!/bin/sh\ntest "$*" = "show --property=NTPSynchronized --value" || exit 2\n{script}\n', encoding="ascii"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert ask_timedated() is synchronised
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not ask_timedated()
