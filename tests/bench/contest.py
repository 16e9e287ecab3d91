"""Contenders for one work, taken in turn, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Target:
    """What `of` may be of `to` at most, as the median of the rounds in which both ran. `to` "": a plain figure."""

    of: str
    to: str
    at_most: float


@dataclass(frozen=True)
class Row:
    """One line of the table. `figures` by contender, in `unit`: the i-th of each belong to one round."""

    work: str
    unit: str  # s, or B for bytes
    figures: Mapping[str, Sequence[float]]
    targets: Sequence[Target] = ()
    remark: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def ratio(self, target: Target) -> float:
        ours = self.figures[target.of]
        theirs = self.figures[target.to] if target.to else [1.0] * len(ours)
        return median(a / b for a, b in zip(ours, theirs, strict=False))

    def met(self, target: Target) -> bool:
        return self.ratio(target) <= target.at_most

    def as_json(self) -> dict[str, Any]:
        found = [{**asdict(target), "ratio": self.ratio(target), "met": self.met(target)} for target in self.targets]
        return {**asdict(self), "targets": found}

    @classmethod
    def from_json(cls, read: Mapping[str, Any]) -> Row:
        targets = [Target(found["of"], found["to"], found["at_most"]) for found in read["targets"]]
        return cls(**{**read, "targets": targets})


def take_turns(
    rounds: int,
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds_of: Mapping[str, int] | None = None,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, list[float]]:
    """Seconds by contender. One round more comes first, for warmth, and counts for nothing.

    `rounds_of`: fewer, for who would take all day; they get no warmth. `before`: what is made ready for whom.
    """
    fewer = rounds_of or {}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(-1, rounds):
        for name, run in contenders.items():
            if name in fewer and not 0 <= number < fewer[name]:
                continue
            (before or {}).get(name, lambda: None)()
            began = time.perf_counter()
            run()
            took = time.perf_counter() - began
            if number >= 0:
                seconds[name].append(took)
    return seconds
