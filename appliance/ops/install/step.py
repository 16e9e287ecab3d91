"""Applies the steps of an installation, and removes what they made.

Installing, uninstalling and a dry run all use the same methods of a step:

    change()   returns what is to be done, as in "<what>: created"; None if the host is as it should be
    apply()    does it
    remove()   undoes what apply() did; returns True if there was something to undo
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


class Removal:
    """Marks steps that leave nothing behind: once they are applied, what they name is absent."""

    __slots__ = ()


def apply_steps(steps: Iterable[Step], report: Callable[[str], None], *, dry_run: bool = False) -> set[str]:
    """Applies the steps that change something, and reports each. Returns the names of what was changed.

    A dry run only reports.
    """
    changed = set()
    for step in steps:
        change = step.change()
        if change is None:
            report(f"{step.what}: {'absent, ' if isinstance(step, Removal) else ''}as it should be")
            continue
        if not dry_run:
            step.apply()
        changed.add(step.what)
        report(f"{step.what}: {'to be ' if dry_run else ''}{change}")
    return changed


def remove_steps(steps: Iterable[Step], report: Callable[[str], None]) -> None:
    """Removes what the steps made, the last first, and reports what was removed."""
    for step in reversed(list(steps)):
        if step.remove():
            report(f"{step.what}: removed")
