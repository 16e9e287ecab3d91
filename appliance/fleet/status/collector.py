"""Reads how the fleet stands, for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from appliance.sessions.metrics import FAST_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric

    from appliance.fleet.status.status import FleetStatus


def rpc_seconds() -> Histogram:
    """Makes what counts requests to other exits, by operation."""
    return Histogram(
        "wg_appliance_fleet_rpc_seconds",
        "How long other exits took to answer, or were waited for",
        ["operation"],
        buckets=FAST_S,
        registry=None,
    )


@dataclass(frozen=True, slots=True)
class FleetCounts:
    """Holds what is counted. `dropped`: beats that were not taken, by why; `resent`, `denied`: see the collector."""

    dropped: Mapping[str, int]
    resent: Callable[[], int]
    denied: Callable[[], int]
    rpc: Histogram


class FleetCollector(Collector):
    """Reads the figures at each scrape."""

    def __init__(self, status: Callable[[], FleetStatus], counts: FleetCounts) -> None:
        self._status = status
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        connected = float(status.cut_off_since is None)
        yield GaugeMetricFamily("wg_appliance_fleet_connected", "1: there is a connection to a hub", connected)
        yield GaugeMetricFamily(
            "wg_appliance_fleet_quorum", "1: accounts can be changed for certain, as far as known here", status.quorum
        )
        alive = GaugeMetricFamily(
            "wg_appliance_fleet_node_alive", "1: an exit of the fleet is heard; this one is too", labels=["node"]
        )
        for node in status.nodes:
            alive.add_metric([node.name], float(node.alive))
        yield alive
        yield GaugeMetricFamily(
            "wg_appliance_fleet_lag_seconds", "For how long the oldest change has not been reported", status.lag_s
        )
        yield GaugeMetricFamily(
            "wg_appliance_fleet_unsent_sessions", "Sessions with changes that no hub has", status.unsent_sessions
        )
        dropped = CounterMetricFamily(
            "wg_appliance_fleet_beats_dropped", "Beats of exits that were not taken", labels=["reason"]
        )
        for reason in ("late", "malformed", "stranger"):
            dropped.add_metric([reason], self._counts.dropped.get(reason, 0))
        yield dropped
        yield CounterMetricFamily(
            "wg_appliance_fleet_resent",
            "Sessions that were reported again, as what the hub had made of a month differed",
            self._counts.resent(),
        )
        yield CounterMetricFamily(
            "wg_appliance_fleet_lease_denied",
            "Claims of clients' keys and devices' names that the ledger denied this exit, as others have them",
            self._counts.denied(),
        )
        yield from self._counts.rpc.collect()
