"""Reads the ports that clients' packets leave with, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from appliance.network.firewall.host_ports import HostPorts


class PortCollector(Collector):
    """Reads the ranges at each scrape."""

    def __init__(self, ports: HostPorts) -> None:
        self._ports = ports

    def collect(self) -> Iterable[Metric]:
        width = GaugeMetricFamily(
            "wg_appliance_port_range",
            "Ports that clients' packets leave with: the most flows of all clients to one address and port",
            labels=["protocol"],
        )
        ranges = self._ports.ranges
        for protocol, range_ in (("tcp", ranges.tcp), ("udp", ranges.udp)):
            width.add_metric([protocol], 0 if range_ is None else range_.width)
        yield width
