"""Which exits exist, where they are and whether they take sessions. Today: this host."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.errors import NoActiveNodeInRegion, NoActiveNodes

APPLIES_FAILED_LIMIT = 3
RETRY_S = 10


@dataclass(slots=True)
class Node:
    """One exit and what is known of its health.

    `fault` is why it is not ready, as /readyz says it; None while it is. `applies_failed` counts in a row.
    """

    name: str
    region: str
    public_ip: str
    drained: bool = False
    fault: str | None = "starting"
    applies_failed: int = 0
    retry_at_ms: int = 0  # CLOCK_BOOTTIME; when a row of failed applies may be forgiven

    @property
    def healthy(self) -> bool:
        return self.fault is None and self.applies_failed < APPLIES_FAILED_LIMIT

    @property
    def active(self) -> bool:
        return self.healthy and not self.drained

    def apply_succeeded(self) -> None:
        self.applies_failed = 0

    def apply_failed(self, boot_ms: int) -> None:
        self.applies_failed += 1
        self.retry_at_ms = boot_ms + RETRY_S * 1000

    def checked(self, fault: str | None, boot_ms: int) -> None:
        """The outcome of a whole check of the exit. One that finds nothing wrong lets the next apply be tried."""
        self.fault = fault
        if fault is None and not self.healthy and boot_ms >= self.retry_at_ms:
            self.applies_failed = 0


class Nodes:
    def __init__(self, *nodes: Node) -> None:
        self._nodes = nodes

    def choose(self, region: str) -> Node:
        """An active node in `region`. Raises NoActiveNodes or NoActiveNodeInRegion."""
        active = [node for node in self._nodes if node.active]
        if not active:
            raise NoActiveNodes
        for node in active:
            if node.region == region:
                return node
        raise NoActiveNodeInRegion(region, tuple(sorted({node.region for node in active})))

    def regions(self) -> list[tuple[str, int]]:
        """(code, number of active nodes) of every region that has one, by code."""
        codes = [node.region for node in self._nodes if node.active]
        return [(code, codes.count(code)) for code in sorted(set(codes))]
