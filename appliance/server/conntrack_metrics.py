"""Reads for Prometheus how full the host's connection tracking is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from appliance.network.firewall.conntrack_size import read_size

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from prometheus_client.core import Metric


class ConntrackCollector(Collector):
    """Reads the figures at each scrape; there are none before anything is tracked. `proc` is /proc."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc

    def collect(self) -> Iterable[Metric]:
        size = read_size(self._proc)
        if size is None:
            return
        yield GaugeMetricFamily("wg_appliance_conntrack_entries", "Connections that the host tracks", size.count)
        yield GaugeMetricFamily(
            "wg_appliance_conntrack_limit", "Connections that the host can track; 0: any number", size.limit
        )
