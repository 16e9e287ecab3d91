"""Runs the server: starts its parts in order, waits, and stops them in order."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from appliance.config import applied
from appliance.config.reject_after import reject_after_ms
from appliance.config.reloadable import in_force
from appliance.domain.clock import HostClock
from appliance.domain.errors import EgressError, HostError, TunnelError
from appliance.network import sockets
from appliance.network.firewall.nft_events import table_events
from appliance.network.firewall.sysctl_events import forwarding_events
from appliance.network.host_events import host_events
from appliance.network.wireguard.backend import choose_device
from appliance.network.wireguard.device_tunnel import DeviceTunnel
from appliance.network.wireguard.link_events import link_events
from appliance.server import assembly, egress_assembly, opened_store
from appliance.server.address_follower import AddressFollower
from appliance.server.api.client_address import source_of_peer
from appliance.server.api.metrics import create_metrics_app
from appliance.server.conntrack_metrics import ConntrackCollector
from appliance.server.endpoint_watch import EndpointWatch
from appliance.server.exporter import ExitCollector
from appliance.server.fleet_membership import FleetMembership
from appliance.server.http.ambiguous_length import Unambiguous
from appliance.server.http.request_queue import RequestQueue
from appliance.server.http.request_timing import Timed
from appliance.server.http.uvicorn_server import WebServer
from appliance.server.interface_claim import claim
from appliance.server.port_collector import PortCollector
from appliance.server.port_watch import PortWatch
from appliance.server.reload import Reload
from appliance.server.retention import Retention
from appliance.server.served_exit import ServedExit
from appliance.server.status import ServiceStatus
from appliance.server.supervisor import Supervisor
from appliance.server.time_service import ServiceClock
from appliance.server.watchers import HOST_APART_S, EventsWatch, watch_store
from appliance.sessions.contentions import FIREWALL, INTERFACE, SYSCTL
from appliance.sessions.metrics import Metrics
from appliance.store import peer_lives
from appliance.store.known_time import believed_clock
from appliance.store.server_keys import ServerKeys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from appliance.config.load import Settings
    from appliance.domain.believed_clock import BelievedClock
    from appliance.network.exit_node import Exit
    from appliance.network.firewall.conntrack_size import ConntrackSizes
    from appliance.network.firewall.firewall import HostEgress
    from appliance.network.firewall.host_ports import HostPorts
    from appliance.network.netlink.events import NetlinkEvents
    from appliance.network.wireguard.tunnel import Tunnel
    from appliance.server.assembly import Parts
    from appliance.server.beginning import Begun
    from appliance.server.http.tls import Certificate
    from appliance.server.listeners import Listeners
    from appliance.server.systemd import Systemd
    from appliance.store.database import Store
    from appliance.store.state_dir import StateDir

    Task = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)

REQUESTS_GRACE_S = 4

# Set if wireguard-go runs as a service of its own: that unit's name. systemd/wg-appliance.service.d/userspace.conf.
WIREGUARD_GO_UNIT = "WIREGUARD_GO_UNIT"


@dataclass(frozen=True, slots=True)
class _Host:
    """Holds what the server serves with on this host: its configuration, tunnel, egress, addresses and ports."""

    settings: Settings
    state: StateDir
    exit: Exit
    tunnel: Tunnel
    egress: HostEgress
    follower: AddressFollower
    ports: HostPorts
    conntrack: ConntrackSizes


async def run(
    begun: Begun, read_settings: Callable[[], Settings], environ: Mapping[str, str], stack: AsyncExitStack
) -> None:
    """Runs the appliance, which has begun, until `begun.stopping` is set. Raises ApplianceError if it cannot start."""
    settings, state, systemd, stopping = begun.settings, begun.state, begun.systemd, begun.stopping
    host_clock, metrics = ServiceClock(HostClock()), Metrics()
    host = await _open_host(settings, state, environ.get(WIREGUARD_GO_UNIT), host_clock, metrics, stack)
    await begun.checked
    store = await opened_store.open_store(state, metrics, stack)
    clock = await _believed_clock(store, host_clock)
    await peer_lives.follow(store, state.peer_lives, clock.now().boot_id)
    parts = await _build_parts(host, store, clock, metrics, reject_after_ms(environ))
    host.follower.wake_up = parts.wakeup.request_tick
    stack.push_async_callback(_leave_host, host)
    applied.note(state.running, settings)
    status = _service_status(systemd, parts, clock)
    take_over = _taking_over(host, parts)
    fleet = FleetMembership(ServedExit(settings, state, store, parts, host.exit.public_key, clock, metrics, take_over))
    reload = Reload(settings, lambda: fleet.over(read_settings()), take_over, parts.ticker, status)
    watches = _watches(host, parts, store, host_clock, stopping, stack)
    await asyncio.to_thread(_make_room_for_flows, host)
    systemd.status("starting: applying what the store says to the host")
    await parts.ticker.tick()
    # What only the host's routing keeps from passing is said, and passes when that is mended.
    if parts.node.health.check_fault is not None and parts.ticker.routing_fault is None:
        raise HostError(parts.node.health.check_fault)
    supervisor = Supervisor(stopping, parts.node.health.task)
    _register_collectors(metrics, host, parts, supervisor)
    servers = _web_servers(host, parts, clock, metrics, begun.listening, begun.certificate)
    tasks: dict[str, Task] = {
        **watches,
        "the retention": partial(Retention(store, parts.services.terms, settings.meter, clock).run, stopping),
        "the service's status": partial(status.run, stopping),
        "the reload": partial(reload.run, begun.reload_asked, stopping),
        "the fleet": partial(fleet.run, stopping),
    }
    await _run(parts, servers, tasks, supervisor, partial(_announce, host), systemd, stopping)


async def _open_host(
    settings: Settings,
    state: StateDir,
    wireguard_go_unit: str | None,
    clock: ServiceClock,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> _Host:
    """Opens the tunnel, which is closed with `stack`, and describes the exit.

    Changes nothing on the host, but for the firewall of a tunnel that is already up.
    """
    # In a thread: pyroute2 runs an event loop, which cannot nest in this one.
    local = await asyncio.to_thread(assembly.describe_exit, settings, state)
    wireguard = settings.wireguard
    device, reason = await asyncio.to_thread(
        choose_device, wireguard.backend, wireguard.interface, state.wireguard_go_log, wireguard_go_unit
    )
    keys = ServerKeys(state, clock.now().boot_id)
    own_unit = wireguard_go_unit is not None
    tunnel = DeviceTunnel(await asyncio.to_thread(claim, device, local.exit, keys, own_unit=own_unit))
    stack.push_async_callback(tunnel.close)
    link = await tunnel.link()
    if link is None or not link.up:
        sockets.require_udp_port("wireguard.listen_port", wireguard.listen_port)
    log.info("%s backend: %s", tunnel.backend, reason)
    user_space = tunnel.backend == "userspace"
    egress = egress_assembly.host_egress(settings, state, local, clock.now().boot_id, user_space=user_space)
    await egress.require_forwarding()
    follower = AddressFollower(settings, local, egress, state.addresses, metrics)
    # Before the table is first applied: no packet of a client leaves with a port of a service.
    ports = await asyncio.to_thread(egress_assembly.host_ports, settings)
    egress.use_ports(ports.ranges)
    if link is not None:
        # Its peers are served while this start takes its time.
        await egress.stand_first(served=bool(link.addresses))
    conntrack = egress_assembly.conntrack_sizes(state, clock.now().boot_id)
    return _Host(settings, state, local.exit, tunnel, egress, follower, ports, conntrack)


def _make_room_for_flows(host: _Host) -> None:
    """Raises the size of the host's connection tracking table, of which a client's share depends."""
    try:
        host.conntrack.raise_limit()
    except EgressError as error:
        log.warning("%s", error)
    host.follower.reconfigure(host.settings)


async def _believed_clock(store: Store, host_clock: ServiceClock) -> BelievedClock:
    """Returns the clock to go by. If it is doubted, whether it is synchronised is known before anything goes by it."""
    clock = await believed_clock(store, host_clock)
    clock.now()
    await host_clock.ask_if_wanted()
    return clock


async def _build_parts(
    host: _Host, store: Store, clock: BelievedClock, metrics: Metrics, reject_after_ms: int
) -> Parts:
    return await assembly.build(
        host.settings,
        store=store,
        tunnel=host.tunnel,
        egress=host.egress,
        exit_=host.exit,
        host=host.follower,
        clock=clock,
        metrics=metrics,
        reject_after_ms=reject_after_ms,
    )


def _register_collectors(metrics: Metrics, host: _Host, parts: Parts, supervisor: Supervisor) -> None:
    metrics.registry.register(ExitCollector(parts, host.tunnel, supervisor.crashes))
    metrics.registry.register(PortCollector(host.ports))
    metrics.registry.register(ConntrackCollector(egress_assembly.PROC))


def _service_status(systemd: Systemd, parts: Parts, clock: BelievedClock) -> ServiceStatus:
    return ServiceStatus(
        systemd, node=parts.node, readiness=parts.services.readiness, live=parts.live, ticker=parts.ticker, clock=clock
    )


def _watches(
    host: _Host, parts: Parts, store: Store, clock: ServiceClock, stopping: asyncio.Event, stack: AsyncExitStack
) -> Mapping[str, Task]:
    """Returns the tasks that wake the ticker, by name. Events are collected from here on, before anything is read."""
    egress, wireguard, interface = host.egress, host.settings.wireguard, host.settings.wireguard.interface
    subnets = [subnet for subnet in (wireguard.subnet, wireguard.subnet6) if subnet is not None]

    def watch(open_events: Callable[[], NetlinkEvents], *kinds: str, apart_s: float = 0.0) -> Task:
        return stack.enter_context(closing(EventsWatch(open_events, parts.wakeup, stopping, kinds, apart_s))).run

    named = {}
    if isinstance(wireguard.endpoint, str):
        named["the endpoint's watch"] = EndpointWatch(wireguard.endpoint, host.follower.clients_dial, stopping).run
    return named | {
        "the time service's watch": partial(clock.run, stopping),
        "the store's watch": partial(watch_store, store, parts.tokens, parts.wakeup, stopping),
        "the interface's watch": watch(lambda: link_events(interface), INTERFACE),
        "the host's watch": watch(lambda: host_events(interface, egress.host_changed, subnets), apart_s=HOST_APART_S),
        "the forwarding's watch": watch(forwarding_events, SYSCTL),
        "the flows' watch": egress_assembly.flow_watch(egress, stopping).run,
        "the ports' watch": PortWatch(host.ports, egress, parts.wakeup, stopping).run,
        "the firewall's watch": watch(
            lambda: table_events(egress.table, egress.table_changed, egress.other_changed, egress.tables_unknown),
            FIREWALL,
        ),
    }


async def _run(
    parts: Parts,
    servers: list[WebServer],
    tasks: Mapping[str, Task],
    supervisor: Supervisor,
    announce: Callable[[], None],
    systemd: Systemd,
    stopping: asyncio.Event,
) -> None:
    async with asyncio.TaskGroup() as group:
        serving = [group.create_task(server.run()) for server in servers]
        ticking = group.create_task(supervisor.keep("the tick", lambda: parts.ticker.run(stopping)))
        for name, run in tasks.items():
            group.create_task(supervisor.keep(name, run))
        for server in servers:
            await server.started.wait()
        announce()
        await stopping.wait()
        log.info("stopping: finishing requests")
        systemd.stopping("stopping: finishing requests")
        for server in servers:
            server.stop()
        await asyncio.gather(*serving)
        parts.wakeup.request_tick()
        await ticking
        await parts.finish()


def _web_servers(
    host: _Host,
    parts: Parts,
    clock: BelievedClock,
    metrics: Metrics,
    listening: Listeners,
    certificate: Certificate | None,
) -> list[WebServer]:
    app = Timed(RequestQueue(Unambiguous(assembly.build_app(host.settings, parts, host.exit, clock))), metrics)
    source_of = partial(source_of_peer, sources=assembly.sources(host.settings))
    servers = [WebServer(app, listening.api, REQUESTS_GRACE_S, certificate, source_of)]
    if listening.metrics:
        exposition = create_metrics_app(metrics.registry)
        servers.append(WebServer(exposition, listening.metrics, REQUESTS_GRACE_S, None, source_of))
    return servers


def _taking_over(host: _Host, parts: Parts) -> Callable[[Settings], None]:
    """Returns the function that applies a reloaded configuration to a running exit.

    It applies egress, tiers and prices: tiers to live sessions too, prices to sessions that are opened from now on.
    """

    def take_over(read: Settings) -> None:
        in_force_now = in_force(host.settings, read)
        parts.services.terms.take_over(read)
        host.follower.reconfigure(in_force_now)
        applied.note(host.state.running, in_force_now)

    return take_over


def _announce(host: _Host) -> None:
    settings, told = host.settings, host.exit.client_settings
    dialled = told.endpoint or host.follower.public_ip
    log.info("region %s, clients dial %s port %d", settings.node.region, dialled, told.endpoint_port)
    if settings.metrics.url is not None:
        log.info("metrics on %s", settings.metrics.url)
    log.info("listening on %s", ", ".join(settings.api.urls))


async def _leave_host(host: _Host) -> None:
    """Keeps the tunnel up, so that a restart disconnects no client, unless the host is to be restored on exit."""
    if host.settings.wireguard.keep_on_exit:
        return
    restores: tuple[Callable[[], Awaitable[object]], ...] = (
        host.tunnel.delete,
        host.egress.remove,
        lambda: asyncio.to_thread(host.conntrack.restore),
    )
    for restore in restores:
        try:
            await restore()
        except (TunnelError, EgressError) as error:
            log.error("the host is not as it was found: %s", error)
