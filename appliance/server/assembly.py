"""Builds every part of the appliance from Settings, in the order in which they need each other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.config.load import HostPort, check_overlap
from appliance.config.plans import Terms
from appliance.domain.entities import Session, State
from appliance.domain.errors import ConfigError
from appliance.metering.meter import Meter
from appliance.metering.usage import Quotas
from appliance.network.address_pool import AddressPool
from appliance.network.exit_node import Exit
from appliance.network.firewall.firewall import HostEgress
from appliance.network.firewall.ruleset import EgressRules
from appliance.network.firewall.sysctls import Forwarding
from appliance.network.interfaces import default_route_address, has_ipv6, host_interfaces, networks
from appliance.network.wireguard import keys
from appliance.network.wireguard.timeouts import TimedTunnel
from appliance.sessions import identity
from appliance.sessions.address_quarantine import RetiredAddresses
from appliance.sessions.convergence import Convergence
from appliance.sessions.enforcement import Endings
from appliance.sessions.lookup import Sessions
from appliance.sessions.node import Node, Nodes
from appliance.sessions.readiness import Readiness
from appliance.sessions.ticker import Ticker
from appliance.sessions.wakeup import Alarm
from appliance.store.live import LiveSessions
from appliance.store.queries import sessions as rows
from appliance.store.token_cache import Tokens

if TYPE_CHECKING:
    from appliance.config.load import Settings, UnixPath
    from appliance.domain.clock import Clock
    from appliance.network.wireguard.tunnel import Tunnel
    from appliance.sessions.convergence import Egress
    from appliance.sessions.metrics import Metrics
    from appliance.store.database import Store
    from appliance.store.state_dir import StateDir

# Restoring thousands of peers takes longer than adding one may.
CONVERGE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class ExitPlacement:
    """This exit, and whether its public address is the host's own (behind a 1:1 NAT it is not)."""

    exit: Exit
    owns_public_ip: bool


def describe_exit(settings: Settings, state: StateDir) -> ExitPlacement:
    """Raises ConfigError when the tunnel's subnets do not go with the host, HostError without a default route."""
    wireguard = settings.wireguard
    if wireguard.subnet6 is not None and not has_ipv6():
        raise ConfigError(
            f'wireguard.subnet6 = "{wireguard.subnet6}": this kernel has no IPv6; set wireguard.subnet6 = ""'
        )
    interfaces = host_interfaces(without=wireguard.interface)
    check_overlap(settings, networks(interfaces))
    public_ip = settings.node.public_ip or default_route_address()
    private_key = state.private_key()
    exit_ = Exit(
        interface=wireguard.interface,
        private_key=private_key,
        public_key=keys.public_key(private_key),
        public_ip=public_ip,
        listen_port=wireguard.listen_port,
        endpoint_port=wireguard.endpoint_port,
        mtu=wireguard.mtu,
        subnet=wireguard.subnet,
        subnet6=wireguard.subnet6,
        dns=wireguard.dns,
        keepalive=wireguard.keepalive,
    )
    return ExitPlacement(exit_, any(interface.ip == public_ip for _, interface in interfaces))


def egress_rules(settings: Settings, place: ExitPlacement) -> EgressRules:
    egress, exit_ = settings.egress, place.exit
    return EgressRules(
        interface=exit_.interface,
        subnet=exit_.subnet,
        subnet6=exit_.subnet6,
        source=exit_.public_ip if place.owns_public_ip else None,
        block_smtp=egress.block_smtp,
        block_private=egress.block_private,
        isolate_clients=egress.isolate_clients,
        extra_block=egress.extra_block,
        own_ports=_ports_on_all_addresses(settings.api.listen, settings.metrics.listen),
    )


def _ports_on_all_addresses(*listeners: HostPort | UnixPath | None) -> tuple[int, ...]:
    return tuple(each.port for each in listeners if isinstance(each, HostPort) and each.everywhere)


def host_egress(settings: Settings, state: StateDir, place: ExitPlacement, boot_id: str) -> HostEgress:
    forwarding = Forwarding(
        Path("/proc/sys"),
        state.sysctls,
        boot_id,
    )
    return HostEgress(egress_rules(settings, place), settings.wireguard.listen_port, forwarding)


@dataclass(frozen=True, slots=True)
class Parts:
    terms: Terms
    tokens: Tokens
    sessions: Sessions
    quotas: Quotas
    ticker: Ticker
    meter: Meter
    live: LiveSessions
    pool: AddressPool
    node: Node
    nodes: Nodes
    readiness: Readiness
    alarm: Alarm


async def build(
    settings: Settings,
    *,
    store: Store,
    tunnel: Tunnel,
    egress: Egress,
    exit_: Exit,
    clock: Clock,
    metrics: Metrics,
) -> Parts:
    """Raises ConfigError when live sessions cannot follow what was changed since the last start."""
    await identity.adopt(store, settings.wireguard, exit_.public_key, clock.now().wall_ms)
    pool = AddressPool(settings.wireguard.subnet)
    held = await recover(store, pool)
    # Whoever ended sessions was perhaps killed before their flows were forgotten.
    await egress.forget_others([address for session in held for address in exit_.addresses_of(session)])
    patience_ms = settings.meter.patience * 1000
    node = Node(settings.node.name, settings.node.region, str(exit_.public_ip), clock, patience_ms)
    nodes = Nodes(node)
    live = LiveSessions()
    prompt = TimedTunnel(tunnel, settings.wireguard.apply_timeout)
    patient = TimedTunnel(tunnel, CONVERGE_TIMEOUT_S)
    terms = Terms(settings)
    tokens = Tokens(store, clock)
    meter = Meter(store, prompt, live, terms, clock)
    turn, alarm = asyncio.Lock(), Alarm()
    endings = Endings(live, terms)

    def opened(session: Session) -> None:
        if endings.opened(session, clock.now()):
            alarm.set_again()

    sessions = Sessions(
        store=store,
        tunnel=prompt,
        meter=meter,
        live=live,
        pool=pool,
        retired=RetiredAddresses(pool, exit_, egress.forget),
        nodes=nodes,
        exit_=exit_,
        terms=terms,
        clock=clock,
        turn=turn,
        apply_timeout=settings.wireguard.apply_timeout,
        check_soon=alarm.ring,
        opened=opened,
        metrics=metrics,
    )
    ticker = Ticker(
        store=store,
        tunnel=patient,
        meter=meter,
        sessions=sessions,
        convergence=Convergence(patient, egress, live, exit_, metrics),
        live=live,
        tokens=tokens,
        node=node,
        endings=endings,
        settings=settings.meter,
        clock=clock,
        turn=turn,
        alarm=alarm,
        metrics=metrics,
    )
    readiness = Readiness(store, prompt, node, clock)
    quotas = Quotas(store, live, terms, clock)
    return Parts(terms, tokens, sessions, quotas, ticker, meter, live, pool, node, nodes, readiness, alarm)


async def recover(store: Store, pool: AddressPool) -> list[Session]:
    """Take up what the store holds: requests that were cut short are undone, addresses in use are taken.

    Returns the sessions that hold them.
    """
    async with store.write() as db:
        unfinished = await rows.unfinished(db)
        await rows.delete_pending(db, [s.id for s in unfinished if s.state is State.PENDING])
    held = [session for session in unfinished if session.state is not State.PENDING]
    for session in held:
        pool.reserve(session.address_offset)
    return held
