"""Which exits exist, where they are and whether they take sessions. Today: this host."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.domain.errors import NoActiveNodeInRegion, NoActiveNodes

if TYPE_CHECKING:
    from appliance.domain.clock import Clock

APPLIES_FAILED_LIMIT = 3
RETRY_MS = 10_000


@dataclass(slots=True)
class Node:
    """One exit and what is known of its health. `patience_ms`: how old the last check of it may be."""

    name: str
    region: str
    public_ip: str
    clock: Clock
    patience_ms: int
    drained: bool = False
    check_fault: str | None = "starting"  # what the last check found
    applies_failed: int = 0  # in a row
    _crashed: dict[str, str] = field(default_factory=dict)
    _retry_at_ms: int = 0  # when a row of failed applies may be forgiven
    _checked_at_ms: int = 0

    @property
    def fault(self) -> str | None:
        """Why it is not ready, as /readyz says it; None while it is."""
        if self.check_fault is not None:
            return self.check_fault
        for crashed in self._crashed.values():
            return crashed
        age_ms = self.clock.now().boot_ms - self._checked_at_ms
        return f"the exit was last checked {age_ms // 1000} s ago" if age_ms > self.patience_ms else None

    @property
    def healthy(self) -> bool:
        return self.fault is None and self.applies_failed < APPLIES_FAILED_LIMIT

    @property
    def active(self) -> bool:
        return self.healthy and not self.drained

    def apply_succeeded(self) -> None:
        self.applies_failed = 0

    def apply_failed(self) -> None:
        self.applies_failed += 1
        self._retry_at_ms = self.clock.now().boot_ms + RETRY_MS

    def checked(self, fault: str | None) -> None:
        """The outcome of a check of the exit. One that finds nothing wrong lets the next apply be tried."""
        self.check_fault = fault
        self._checked_at_ms = self.clock.now().boot_ms
        if fault is None and not self.healthy and self._checked_at_ms >= self._retry_at_ms:
            self.applies_failed = 0

    def task(self, name: str, fault: str | None) -> None:
        """A background task does not run, and why; None: it does."""
        if fault is None:
            self._crashed.pop(name, None)
        else:
            self._crashed[name] = fault


class Nodes:
    """Places sessions on the nodes that there are: the `Placement` of openings."""

    def __init__(self, *nodes: Node) -> None:
        self._nodes = nodes

    def choose(self, region: str) -> Node:
        """Returns an active node in `region`. Raises NoActiveNodes or NoActiveNodeInRegion."""
        active = [node for node in self._nodes if node.active]
        if not active:
            raise NoActiveNodes
        for node in active:
            if node.region == region:
                return node
        raise NoActiveNodeInRegion(region, tuple(sorted({node.region for node in active})))

    def regions(self) -> list[tuple[str, int]]:
        """Returns (code, number of active nodes) of every region that has one, by code."""
        codes = [node.region for node in self._nodes if node.active]
        return [(code, codes.count(code)) for code in sorted(set(codes))]
