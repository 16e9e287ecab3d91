"""Describes the exit nodes: where they are, whether they work, and which one takes a new session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.errors import NoActiveNodeInRegion, NoActiveNodes

if TYPE_CHECKING:
    from appliance.domain.clock import Clock

FAILED_APPLIES_LIMIT = 3
RETRY_MS = 10_000


class NodeHealth:
    """Tracks whether a node works. `max_age_ms` is how old its last check may be; `fault`, what it starts with."""

    def __init__(self, clock: Clock, max_age_ms: int, fault: str | None = "starting") -> None:
        self._clock = clock
        self._max_age_ms = max_age_ms
        self.check_fault = fault  # what the last check found
        self.failed_applies = 0  # in a row
        self.host_fault: str | None = None  # why clients' packets cannot leave
        self._crashed: dict[str, str] = {}  # by task name
        self._retry_at_ms = 0  # when a row of failed applies may be forgiven
        self._checked_at_ms = 0

    @property
    def fault(self) -> str | None:
        """Returns why the node is not ready, as /readyz words it; None if it is ready."""
        if self.check_fault is not None:
            return self.check_fault
        if self.host_fault is not None:
            return self.host_fault
        for crashed in self._crashed.values():
            return crashed
        age_ms = self._clock.now().boot_ms - self._checked_at_ms
        return f"the exit was last checked {age_ms // 1000} s ago" if age_ms > self._max_age_ms else None

    @property
    def healthy(self) -> bool:
        """Tells whether the node is ready and its last changes of peers were not all refused."""
        return self.fault is None and self.failed_applies < FAILED_APPLIES_LIMIT

    def apply_succeeded(self) -> None:
        """Notes that a peer was changed for a request."""
        self.failed_applies = 0

    def apply_failed(self) -> None:
        """Notes that a peer could not be changed for a request."""
        self.failed_applies += 1
        self._retry_at_ms = self._clock.now().boot_ms + RETRY_MS

    def checked(self, fault: str | None) -> None:
        """Notes the outcome of a check of the exit. A check without a fault lets the next apply be tried."""
        self.check_fault = fault
        self._checked_at_ms = self._clock.now().boot_ms
        if fault is None and not self.healthy and self._checked_at_ms >= self._retry_at_ms:
            self.failed_applies = 0

    def host(self, fault: str | None) -> None:
        """Notes why clients' packets cannot leave the host; None: they can."""
        self.host_fault = fault

    def task(self, name: str, fault: str | None) -> None:
        """Notes why a background task does not run; None: it runs."""
        if fault is None:
            self._crashed.pop(name, None)
        else:
            self._crashed[name] = fault


@dataclass(slots=True)
class Node:
    """Describes one exit: its place, its health, and whether it takes no new sessions (`drained`).

    `public_ip`: what new sessions are told; it follows the host's. `id_mark`: what ids made here end in, in a fleet.
    """

    name: str
    region: str
    public_ip: str
    health: NodeHealth
    drained: bool = False
    id_mark: str = ""

    @property
    def active(self) -> bool:
        """Tells whether the node takes new sessions."""
        return self.health.healthy and not self.drained


class Nodes:
    """Places sessions on the nodes of this process: implements `Placement` (sessions/batch_opens.py)."""

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
