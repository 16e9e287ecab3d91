"""Runs the server: starts its parts in order, waits, and stops them in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from appliance.config import applied
from appliance.config.reloadable import in_force
from appliance.domain.clock import HostClock
from appliance.domain.errors import EgressError, HostError, TunnelError
from appliance.network import sockets
from appliance.network.firewall.nft_events import table_events
from appliance.network.firewall.sysctl_events import forwarding_events
from appliance.network.wireguard.backend import choose_backend
from appliance.network.wireguard.link_events import link_events
from appliance.server import assembly
from appliance.server.api.metrics import create_metrics_app
from appliance.server.exporter import ExitCollector
from appliance.server.http.ambiguous_length import Unambiguous
from appliance.server.http.request_queue import RequestQueue
from appliance.server.http.request_timing import Timed
from appliance.server.http.tls import Certificate
from appliance.server.http.uvicorn_server import WebServer
from appliance.server.reload import Reload
from appliance.server.status import ServiceStatus
from appliance.server.supervisor import Supervisor
from appliance.server.systemd import Systemd
from appliance.server.watchers import EventsWatch, watch_store
from appliance.sessions.metrics import Metrics
from appliance.store import integrity
from appliance.store.database import Store
from appliance.store.state_dir import StateDir

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from appliance.config.load import Settings
    from appliance.domain.clock import Clock
    from appliance.network.firewall.firewall import HostEgress
    from appliance.network.netlink.events import NetlinkEvents
    from appliance.network.wireguard.tunnel import Tunnel
    from appliance.server.assembly import LocalExit, Parts

    Task = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)

REQUESTS_GRACE_S = 4
STOP_LIMIT_S = 10


# Set if wireguard-go runs as a service of its own: that unit's name. systemd/wg-appliance.service.d/userspace.conf.
WIREGUARD_GO_UNIT = "WIREGUARD_GO_UNIT"


def serve(read_settings: Callable[[], Settings], environ: Mapping[str, str]) -> None:
    """Runs the appliance until SIGTERM or SIGINT. Raises ApplianceError if it cannot start.

    SIGHUP reads the settings again, and applies those that can change at run time.
    """
    asyncio.run(_serve(read_settings, environ))


@dataclass(frozen=True, slots=True)
class _Host:
    """Holds what the server serves with on this host: its configuration, state directory, tunnel and egress."""

    settings: Settings
    state: StateDir
    local: LocalExit
    tunnel: Tunnel
    egress: HostEgress


async def _serve(read_settings: Callable[[], Settings], environ: Mapping[str, str]) -> None:
    stopping, reload_asked = _catch_signals()
    settings = read_settings()
    systemd, state = Systemd(environ), StateDir(settings.node.state_dir)
    state.create()
    async with AsyncExitStack() as stack:
        # First in, so last out: it limits the time of the whole shutdown.
        stack.enter_context(_hard_stop(stopping))
        stack.enter_context(state.serving())
        state.require_whole()
        listeners = _bind(settings, stack)
        certificate = _certificate(settings)
        clock, metrics = HostClock(), Metrics()
        host = await _open_host(settings, state, environ.get(WIREGUARD_GO_UNIT), clock, stack)
        systemd.status("starting: checking the store")
        store = await _open_store(state, metrics, stack)
        parts = await _build_parts(host, store, clock, metrics)
        stack.push_async_callback(_leave_host, host)
        applied.note(state.running, settings)
        status = _service_status(systemd, parts, clock)
        reload = Reload(settings, read_settings, _taking_over(host, parts), parts.ticker, status)
        watches = _watches(host, parts, store, stopping, stack)
        systemd.status("starting: applying what the store says to the host")
        await parts.ticker.tick()
        if parts.node.health.fault is not None:
            raise HostError(parts.node.health.fault)
        supervisor = Supervisor(stopping, parts.node.health.task)
        metrics.registry.register(ExitCollector(parts, host.tunnel, supervisor.crashes))
        servers = _web_servers(host, parts, clock, metrics, listeners, certificate)
        tasks: dict[str, Task] = {
            **watches,
            "the service's status": partial(status.run, stopping),
            "the reload": partial(reload.run, reload_asked, stopping),
        }
        await _run(parts, servers, tasks, supervisor, partial(_announce, host), systemd, stopping)


def _catch_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Catches the signals of the server. Returns the events that they set: to stop, and to reload."""
    stopping, reload_asked = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, reload_asked.set)
    return stopping, reload_asked


def _certificate(settings: Settings) -> Certificate | None:
    cert, key = settings.api.tls_cert, settings.api.tls_key
    return Certificate(cert, key) if cert and key else None


async def _open_host(
    settings: Settings, state: StateDir, wireguard_go_unit: str | None, clock: Clock, stack: AsyncExitStack
) -> _Host:
    """Opens the tunnel, which is closed with `stack`, and describes the exit.

    Changes nothing on the host, but for the firewall of a tunnel that is already up.
    """
    # In a thread: pyroute2 runs an event loop, which cannot nest in this one.
    local = await asyncio.to_thread(assembly.describe_exit, settings, state)
    wireguard = settings.wireguard
    tunnel, reason = await asyncio.to_thread(
        choose_backend, wireguard.backend, wireguard.interface, state.wireguard_go_log, wireguard_go_unit
    )
    stack.push_async_callback(tunnel.close)
    link = await tunnel.link()
    if link is None or not link.up:
        sockets.require_udp_port("wireguard.listen_port", wireguard.listen_port)
    log.info("%s backend: %s", tunnel.backend, reason)
    egress = assembly.host_egress(settings, state, local, clock.now().boot_id)
    if link is not None:
        # Its peers are served while this start takes its time.
        await egress.stand_first()
    return _Host(settings, state, local, tunnel, egress)


async def _open_store(state: StateDir, metrics: Metrics, stack: AsyncExitStack) -> Store:
    """Checks the store, or creates it, and opens it; it is closed with `stack`."""
    await asyncio.to_thread(integrity.check, state.store)
    state.create_store()
    store = await Store.open(state.store, observer=metrics.store_used)
    stack.push_async_callback(store.close)
    return store


async def _build_parts(host: _Host, store: Store, clock: Clock, metrics: Metrics) -> Parts:
    return await assembly.build(
        host.settings,
        store=store,
        tunnel=host.tunnel,
        egress=host.egress,
        exit_=host.local.exit,
        clock=clock,
        metrics=metrics,
    )


def _service_status(systemd: Systemd, parts: Parts, clock: Clock) -> ServiceStatus:
    return ServiceStatus(
        systemd, node=parts.node, readiness=parts.services.readiness, live=parts.live, ticker=parts.ticker, clock=clock
    )


def _watches(
    host: _Host, parts: Parts, store: Store, stopping: asyncio.Event, stack: AsyncExitStack
) -> Mapping[str, Task]:
    """Returns the tasks that wake the ticker, by name. Events are collected from here on, before anything is read."""
    egress, interface = host.egress, host.settings.wireguard.interface

    def watch(open_events: Callable[[], NetlinkEvents]) -> Task:
        return stack.enter_context(closing(EventsWatch(open_events, parts.wakeup, stopping))).run

    return {
        "the store's watch": partial(watch_store, store, parts.tokens, parts.wakeup, stopping),
        "the interface's watch": watch(lambda: link_events(interface)),
        "the forwarding's watch": watch(forwarding_events),
        "the firewall's watch": watch(
            lambda: table_events(egress.table_changed, egress.other_changed, egress.tables_unknown)
        ),
    }


def _bind(settings: Settings, stack: AsyncExitStack) -> list[socket.socket]:
    """Binds the API's socket, and the metrics' if one is configured."""
    wanted = [("api.listen", settings.api.listen)]
    if settings.metrics.listen is not None:
        wanted.append(("metrics.listen", settings.metrics.listen))
    listeners = []
    for key, where in wanted:
        # The tunnel's own address, at which clients inside it reach the API, exists only once the tunnel is up.
        listener = sockets.bind(key, where, later=settings.wireguard.own_addresses)
        listeners.append(stack.enter_context(closing(listener)))
        stack.callback(sockets.unlink_unix, where)
    return listeners


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
        await parts.ticker.tick()


def _web_servers(
    host: _Host,
    parts: Parts,
    clock: Clock,
    metrics: Metrics,
    listeners: list[socket.socket],
    certificate: Certificate | None,
) -> list[WebServer]:
    app = assembly.build_app(host.settings, parts, host.local.exit, clock)
    servers = [WebServer(Timed(RequestQueue(Unambiguous(app)), metrics), listeners[0], REQUESTS_GRACE_S, certificate)]
    exposition = create_metrics_app(metrics.registry)
    servers += [WebServer(exposition, listener, REQUESTS_GRACE_S) for listener in listeners[1:]]
    return servers


def _taking_over(host: _Host, parts: Parts) -> Callable[[Settings], None]:
    """Returns the function that applies a reloaded configuration to a running exit.

    It applies egress, tiers and prices: tiers to live sessions too, prices to sessions that are opened from now on.
    """

    def take_over(read: Settings) -> None:
        in_force_now = in_force(host.settings, read)
        parts.services.terms.take_over(read)
        host.egress.take_over(assembly.egress_rules(in_force_now, host.local))
        applied.note(host.state.running, in_force_now)

    return take_over


def _announce(host: _Host) -> None:
    settings, endpoint = host.settings, host.local.exit.client_settings.endpoint
    log.info("region %s, clients dial %s port %d", settings.node.region, endpoint.host, endpoint.port)
    if settings.metrics.url is not None:
        log.info("metrics on %s", settings.metrics.url)
    log.info("listening on %s", settings.api.url)


async def _leave_host(host: _Host) -> None:
    """Keeps the tunnel up, so that a restart disconnects no client, unless the host is to be restored on exit."""
    if host.settings.wireguard.keep_on_exit:
        return
    try:
        await host.tunnel.delete()
        await host.egress.remove()
    except (TunnelError, EgressError) as error:
        log.error("the host is not as it was found: %s", error)


@contextmanager
def _hard_stop(stopping: asyncio.Event) -> Iterator[None]:
    """Exits STOP_LIMIT_S after the stop was requested, even if a thread, a device or the event loop hangs."""

    async def arm() -> None:
        await stopping.wait()
        timer.start()

    timer = threading.Timer(STOP_LIMIT_S, _give_up)
    timer.daemon = True
    arming = asyncio.ensure_future(arm())
    try:
        yield
    finally:
        arming.cancel()
        timer.cancel()


def _give_up() -> None:
    log.critical("not stopped within %d s; leaving as after a crash, the next start settles it", STOP_LIMIT_S)
    os._exit(1)
