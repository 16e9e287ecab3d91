"""Reads how the fleet stands, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric

    from appliance.fleet.status import FleetStatus


class FleetCollector(Collector):
    """Reads the figures at each scrape. `dropped`: beats that were not taken, by why."""

    def __init__(self, status: Callable[[], FleetStatus], dropped: Mapping[str, int]) -> None:
        self._status = status
        self._dropped = dropped

    def collect(self) -> Iterable[Metric]:
        status = self._status()
        connected = float(status.cut_off_since is None)
        yield GaugeMetricFamily("wg_appliance_fleet_connected", "1: there is a connection to a hub", connected)
        alive = GaugeMetricFamily(
            "wg_appliance_node_alive", "1: an exit of the fleet is heard; this one is too", labels=["node"]
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
            dropped.add_metric([reason], self._dropped.get(reason, 0))
        yield dropped
