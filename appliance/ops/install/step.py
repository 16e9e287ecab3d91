"""Carries out the steps that installing is made of, and takes them back.

Whatever installs or uninstalls, really or as a rehearsal, goes through the same few words of a step:

    change()   what is to be done, as in "<what>: created"; None where the host is as it should be
    apply()    does it
    remove()   takes back what apply() did; True if there was something
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Step(Protocol):
    @property
    def what(self) -> str: ...

    def change(self) -> str | None: ...

    def apply(self) -> None: ...

    def remove(self) -> bool: ...


def carry_out(steps: Iterable[Step], say: Callable[[str], None], *, rehearse: bool = False) -> set[str]:
    """Do what is to be done, saying each step; what was changed, by its name."""
    changed = set()
    for step in steps:
        change = step.change()
        if change is None:
            say(f"{step.what}: as it should be")
            continue
        if not rehearse:
            step.apply()
        changed.add(step.what)
        say(f"{step.what}: {'to be ' if rehearse else ''}{change}")
    return changed


def take_back(steps: Iterable[Step], say: Callable[[str], None]) -> None:
    for step in reversed(list(steps)):
        if step.remove():
            say(f"{step.what}: removed")
