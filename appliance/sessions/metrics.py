"""Counts and measures events for /metrics as they happen. Values that can be read at any time are in the exporter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from appliance.domain.entities import Reason
from appliance.domain.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Iterable

REPAIRS = ("firewall", "sysctl", "interface", "device", "peer_restored", "peer_changed", "peer_removed")
CONTENDED = ("firewall", "sysctl", "interface", "device", "peers")
OF_DEVICES = (
    ("device_sessions_opened", "Sessions of devices that handshakes opened"),
    ("unowned_bytes", "Bytes of handshakes that came to nothing, of devices that were removed or got another key"),
)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
NO_ANSWER = "none"

FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
PATIENT_S = (*FAST_S, 30, 60)


class Metrics:
    """Holds the counters and histograms of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.sessions_opened = self._counter("sessions_opened", "Sessions that were opened", tier=Tier)
        self.device_sessions_opened, self.unowned_bytes = (self._counter(*each) for each in OF_DEVICES)
        self.sessions_terminated = self._counter("sessions_terminated", "Sessions that ended", reason=Reason)
        self.repairs = self._counter(
            "repairs", "Differences between store and host that were put right, the start's own included", kind=REPAIRS
        )
        self.public_address_changes = self._counter(
            "public_address_changes", "Times that new sessions began to be told another public address"
        )
        self.contended = _contended(self.registry)
        self._store_failures = self._counter("store_failures", "Uses of the store that it could not serve")
        self._store_seconds = Histogram(
            "wg_appliance_store_duration_seconds",
            "How long the store was in use for a transaction or a reading, waiting for it included",
            ["operation"],
            buckets=FAST_S,
            registry=self.registry,
        )
        self._tick_seconds = Histogram(
            "wg_appliance_tick_duration_seconds",
            "How long ticks took; look: counters read, whole: all compared and committed",
            ["kind"],
            buckets=PATIENT_S,
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "wg_appliance_http_request_duration_seconds",
            "How long answers of the API took, until they were sent",
            ["method", "route", "status"],
            buckets=PATIENT_S,
            registry=self.registry,
        )
        self._answers: dict[
            tuple[object, ...], Histogram
        ] = {}  # by labels: looking up a series takes longer than counting in it

    def store_used(self, operation: str, seconds: float, *, failed: bool) -> None:
        self._store_seconds.labels(operation).observe(seconds)
        self._store_failures.inc(failed)

    def ticked(self, seconds: float, *, whole: bool) -> None:
        self._tick_seconds.labels("whole" if whole else "look").observe(seconds)

    def answered(self, method: str, route: str | None, status: int | None, seconds: float) -> None:
        """Counts an answer. `route` as declared, None: no such route; `status` None: the client left before it."""
        labels = (method if method in METHODS else OTHER, route or OTHER, NO_ANSWER if status is None else status)
        series = self._answers.get(labels)
        if series is None:
            series = self._answers[labels] = self._request_seconds.labels(*labels)
        series.observe(seconds)

    def _counter(self, name: str, meaning: str, **labels: Iterable[str]) -> Counter:
        """Creates a counter with all its series at 0, so that a first increase shows."""
        counter = Counter(f"wg_appliance_{name}", meaning, [*labels], registry=self.registry)
        for values in labels.values():
            for value in values:
                counter.labels(value)
        return counter


def _contended(registry: CollectorRegistry) -> Gauge:
    gauge = Gauge(
        "wg_appliance_contended",
        "1: another program keeps undoing repairs of this kind, which are slowed down",
        ["kind"],
        registry=registry,
    )
    for kind in CONTENDED:
        gauge.labels(kind)
    return gauge
