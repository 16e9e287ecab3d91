"""Builds every part of the appliance from Settings, in the order in which they need each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.config.load import check_overlap
from appliance.domain.carrying import REJECT_AFTER_MS
from appliance.domain.errors import ConfigError, HostError
from appliance.metering.usage import Quotas
from appliance.network.address_pool import AddressPool
from appliance.network.admission.choice import mark_of_this_exit
from appliance.network.exit_node import Exit, HeldAddresses, build_exit
from appliance.network.firewall import own_table
from appliance.network.interfaces import has_ipv6, host_interfaces
from appliance.network.public_address import Standing, decide
from appliance.network.uplinks import NO_PUBLIC_ADDRESS, look
from appliance.network.wireguard.backend import require_tunnel_name
from appliance.network.wireguard.timeouts import TimedTunnel
from appliance.server import device_assembly, session_assembly
from appliance.server.api.app import Services, create_app
from appliance.server.api.auth import Authenticator
from appliance.server.api.client_address import Sources
from appliance.server.api.offered import Offered
from appliance.server.api.rate_limits import RequestLimits
from appliance.server.host_services import host_services
from appliance.sessions import identity
from appliance.sessions.address_quarantine import Addresses, AddressQuarantine
from appliance.sessions.contentions import Contentions
from appliance.sessions.convergence import Convergence
from appliance.sessions.devices.policy import DevicePolicy
from appliance.sessions.node import Node, NodeHealth, Nodes
from appliance.sessions.readiness import Readiness
from appliance.sessions.reloading import Reloading
from appliance.sessions.wakeup import Wakeup
from appliance.store import contended
from appliance.store.state_dir import StateDir
from appliance.store.token_cache import Tokens

if TYPE_CHECKING:
    from litestar import Litestar

    from appliance.config.load import Settings
    from appliance.domain.believed_clock import BelievedClock
    from appliance.domain.clock import Clock
    from appliance.metering.meter import Meter
    from appliance.network.admission.mark import Mark
    from appliance.network.firewall.rules import HostServices
    from appliance.network.wireguard.tunnel import Tunnel
    from appliance.server.session_assembly import Shared, Turning
    from appliance.sessions.convergence import Egress, Host
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.peer_access import PeerAccess
    from appliance.sessions.records import Records
    from appliance.sessions.ticker import Ticker
    from appliance.sessions.waiting import Queue
    from appliance.store.database import Store
    from appliance.store.live import LiveSessions

# Restoring thousands of peers takes longer than adding one may.
CONVERGE_TIMEOUT_S = 60.0
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class LocalExit:
    """Holds this exit, how it stands on its host (what clients are told, how they leave), and its services.

    `mark`: what tells packets that the firewall has let in.
    """

    exit: Exit
    standing: Standing
    services: HostServices
    mark: Mark


def describe_exit(settings: Settings, state: StateDir) -> LocalExit:
    """Describes this exit from the configuration, the state directory and the host.

    Raises ConfigError if the tunnel's subnets do not fit the host. Raises HostError without a default route, and if
    another link than a tunnel has the interface's name.
    """
    wireguard = settings.wireguard
    require_tunnel_name(wireguard.interface)  # first: the uplink, named so, would not be looked at as a way out
    if wireguard.subnet6 is not None and not has_ipv6():
        raise ConfigError(
            f'wireguard.subnet6 = "{wireguard.subnet6}": this kernel has no IPv6; set wireguard.subnet6 = ""'
        )
    check_overlap(settings, [(name, each.network) for name, each in host_interfaces(without=wireguard.interface)])
    configured = settings.node.public_ip
    standing = decide(configured, look(configured, without=wireguard.interface), None)
    if standing is None:
        raise HostError(NO_PUBLIC_ADDRESS)
    wanted = settings.egress.mark, settings.egress.rule_priority
    table = own_table.standing(wireguard.interface, state.nftables)
    mark = mark_of_this_exit(wanted, wireguard.interface, table, state.admission)
    return LocalExit(build_exit(wireguard, state.private_key()), standing, host_services(settings), mark)


@dataclass(frozen=True, slots=True)
class Parts:
    """Holds the parts of a running exit that the server and the tests ask."""

    services: Services
    tokens: Tokens
    ticker: Ticker
    records: Records
    peers: PeerAccess
    pool: AddressPool
    node: Node
    wakeup: Wakeup
    queue: Queue

    async def finish(self) -> None:
        """Stores what is left when no request comes any more: the last counts, the last ends."""
        await self.services.devices.settled()
        await self.ticker.finish()
        await self.queue.settled()

    @property
    def meter(self) -> Meter:
        """Returns what counts sessions."""
        return self.records.meter

    @property
    def live(self) -> LiveSessions:
        """Returns the sessions that have not ended."""
        return self.records.live


async def build(
    settings: Settings,
    *,
    store: Store,
    tunnel: Tunnel,
    egress: Egress,
    exit_: Exit,
    host: Host,
    clock: BelievedClock,
    metrics: Metrics,
    reject_after_ms: int = REJECT_AFTER_MS,
) -> Parts:
    """Builds all parts of an exit, and takes up what the store holds. A handshake counts for `reject_after_ms`.

    Raises ConfigError if live sessions cannot follow what was changed since the last start. Raises StoreUnavailable.
    """
    await identity.adopt(store, settings, exit_.public_key, clock.now().wall_ms)
    addresses = await _take_up(store, AddressPool(settings.wireguard.subnet), egress, exit_)
    wakeup, tokens, node = Wakeup(), Tokens(store, clock), build_node(settings, host, clock)
    shared = session_assembly.share(settings, store, tunnel, addresses, exit_, clock, metrics, wakeup, reject_after_ms)
    reloading = Reloading(records=shared.records, tokens=tokens, addresses=addresses, undo=shared.undo)
    turning = session_assembly.build_turning(shared, reloading, Nodes(node), node)
    convergence = _build_convergence(shared, tunnel, egress, host, _contentions(settings, metrics, wakeup))
    return Parts(
        services=_build_services(shared, reloading, turning, node, clock),
        tokens=tokens,
        ticker=session_assembly.build_ticker(shared, turning, convergence, reloading, node, settings.meter),
        records=shared.records,
        peers=shared.peers,
        pool=addresses.pool,
        node=node,
        wakeup=wakeup,
        queue=turning.queue,
    )


def _build_services(shared: Shared, reloading: Reloading, turning: Turning, node: Node, clock: Clock) -> Services:
    store, live, nodes, terms = shared.records.store, shared.records.live, Nodes(node), shared.terms
    quotas = Quotas(store, live, terms, clock, shared.records.lending)
    policy = DevicePolicy(live=live, node=node, placement=nodes, terms=terms, quotas=quotas)
    sessions = session_assembly.build_service(shared, turning)
    devices = device_assembly.build_service(shared, reloading, turning, policy)
    return Services(
        sessions=sessions,
        devices=devices,
        offered=Offered(sessions, devices, nodes, quotas),
        quotas=quotas,
        readiness=Readiness(store, shared.peers.tunnel, node.health, clock),
        terms=terms,
    )


def _build_convergence(
    shared: Shared, tunnel: Tunnel, egress: Egress, host: Host, contentions: Contentions
) -> Convergence:
    patient, records = TimedTunnel(tunnel, CONVERGE_TIMEOUT_S), shared.records
    return Convergence(patient, egress, records.live, records.devices, shared.exit, shared.metrics, host, contentions)


def _contentions(settings: Settings, metrics: Metrics, wakeup: Wakeup) -> Contentions:
    contentions = Contentions(metrics, partial(contended.note, StateDir(settings.node.state_dir).contended))
    wakeup.calm_s = contentions.wait_s
    return contentions


async def _take_up(store: Store, pool: AddressPool, egress: Egress, exit_: Exit) -> Addresses:
    held = await session_assembly.recover(store, pool)
    # The process may have been killed between ending sessions and forgetting their flows.
    await egress.forget_others(HeldAddresses(exit_, held))
    return Addresses(pool, AddressQuarantine(pool, exit_, egress.forget))


def build_node(settings: Settings, host: Host, clock: Clock) -> Node:
    """Builds the node that this exit is."""
    health = NodeHealth(clock, settings.meter.patience * 1000)
    return Node(settings.node.name, settings.node.region, host.public_ip, health)


def sources(settings: Settings) -> Sources:
    """Returns whose word the API takes for where a request comes from."""
    wireguard = settings.wireguard
    tunnel = [subnet for subnet in (wireguard.subnet, wireguard.subnet6) if subnet is not None]
    return Sources(settings.api.trusted_proxies, tunnel)


def build_app(settings: Settings, parts: Parts, exit_: Exit, clock: Clock) -> Litestar:
    """Builds the API's application around the parts."""
    api = settings.api
    limits = RequestLimits(api.public_requests_per_minute, api.public_burst, sources(settings))
    return create_app(
        parts.services,
        authenticate=Authenticator(parts.tokens, limits, parts.services.terms, parts.services.offered),
        limits=limits,
        own_keys=frozenset({exit_.public_key}),
        clock=clock,
        max_body=api.max_body,
    )
