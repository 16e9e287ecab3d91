"""Reads the running exit for Prometheus: sessions, traffic, addresses, ticks and crashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from appliance import __version__
from appliance.domain.tiers import Tier

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.core import Metric

    from appliance.network.wireguard.tunnel import Tunnel
    from appliance.server.assembly import Parts


class ExitCollector(Collector):
    """Reads the figures from the running parts at each scrape, and stores none."""

    def __init__(self, parts: Parts, tunnel: Tunnel, crashes: Mapping[str, int]) -> None:
        """Creates the collector. `crashes`: by background task."""
        self._live = parts.live
        self._devices = parts.records.devices
        self._pool = parts.pool
        self._node = parts.node
        self._meter = parts.meter
        self._ticker = parts.ticker
        self._tunnel = tunnel
        self._crashes = crashes

    def collect(self) -> Iterable[Metric]:
        yield from self._infos()
        yield from self._sessions_and_traffic()
        yield from self._node_and_ticks()

    def _sessions_and_traffic(self) -> Iterable[Metric]:
        sessions = GaugeMetricFamily("wg_appliance_sessions_live", "Live sessions", labels=["tier"])
        live = self._live.live_by_tier()
        for tier in Tier:
            sessions.add_metric([tier], live.get(tier, 0))
        yield sessions
        devices = GaugeMetricFamily("wg_appliance_devices", "Devices, by what each is doing", labels=["state"])
        for state, many in self._devices.by_state(self._live.public_keys(), self._live.number_of_devices()).items():
            devices.add_metric([state], many)
        yield devices
        traffic = CounterMetricFamily(
            "wg_appliance_traffic_bytes", "Billed since the process started; in: from clients", labels=["direction"]
        )
        traffic.add_metric(["in"], self._meter.bytes_in)
        traffic.add_metric(["out"], self._meter.bytes_out)
        yield traffic
        yield GaugeMetricFamily("wg_appliance_addresses", "Client addresses in the subnet", self._pool.capacity)
        yield GaugeMetricFamily("wg_appliance_addresses_used", "Client addresses taken", self._pool.in_use)
        free = self._pool.capacity - self._pool.in_use
        yield GaugeMetricFamily("wg_appliance_addresses_free", "Client addresses that are not taken", free)

    def _node_and_ticks(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("wg_appliance_node_active", "1: takes new sessions", float(self._node.active))
        yield GaugeMetricFamily("wg_appliance_node_drained", "1: drained", float(self._node.drained))
        yield GaugeMetricFamily(
            "wg_appliance_applies_failed", "Failed applies in a row", self._node.health.failed_applies
        )
        yield from self._ticks()
        crashes = CounterMetricFamily("wg_appliance_task_crashes", "Crashes of background tasks", labels=["task"])
        for task, many in self._crashes.items():
            crashes.add_metric([task], many)
        yield crashes

    def _ticks(self) -> Iterable[Metric]:
        routed = float(self._ticker.routing_fault is None)
        yield GaugeMetricFamily(
            "wg_appliance_clients_routed", "1: the host's routing lets clients' packets pass", routed
        )
        yield GaugeMetricFamily(
            "wg_appliance_clock_doubted_seconds",
            "How far the host's wall clock is ahead of the one that is believed; 0: it is believed",
            self._ticker.clock_ahead_ms / 1000,
        )
        yield CounterMetricFamily("wg_appliance_ticks", "Whole ticks", self._ticker.ticks)
        yield CounterMetricFamily("wg_appliance_ticks_failed", "Ticks that met a fault", self._ticker.failed_ticks)
        yield CounterMetricFamily(
            "wg_appliance_dump_retries",
            "Readings of the device taken again, as it changed under them",
            self._tunnel.dump_retries,
        )
        if self._ticker.last_tick_ms is not None:
            yield GaugeMetricFamily(
                "wg_appliance_last_tick_boottime_seconds",
                "When the last whole tick ended, in CLOCK_BOOTTIME",
                self._ticker.last_tick_ms / 1000,
            )

    def _infos(self) -> Iterable[Metric]:
        build = {"version": __version__, "backend": self._tunnel.backend}
        yield InfoMetricFamily("wg_appliance_build", "What runs, and on which WireGuard", build)
        told = {"address": self._node.public_ip}
        yield InfoMetricFamily("wg_appliance_public_address", "The address that new sessions are told", told)
