"""Builds what opens, ends, meters and enforces sessions, around what it shares."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appliance.config.plans import Terms
from appliance.metering.meter import Meter
from appliance.network.wireguard.timeouts import TimedTunnel
from appliance.sessions.arrivals import Arrivals
from appliance.sessions.batch import Batch
from appliance.sessions.batch_arrivals import BatchArrivals
from appliance.sessions.batch_closes import BatchCloses
from appliance.sessions.batch_opens import BatchOpens, OpenRequest
from appliance.sessions.ended import Ended
from appliance.sessions.ending import Ending
from appliance.sessions.enforcement import Enforcement
from appliance.sessions.holding import Holding
from appliance.sessions.lookup import Lookup
from appliance.sessions.opening import Opening
from appliance.sessions.peer_access import PeerAccess
from appliance.sessions.records import Records
from appliance.sessions.schedule import Schedule
from appliance.sessions.service import SessionService
from appliance.sessions.ticker import Ticker
from appliance.sessions.turnover import Turnover
from appliance.sessions.undo import Undo
from appliance.sessions.waiting import Queue, Waiting
from appliance.store.live import LiveSessions
from appliance.store.live_devices import LiveDevices
from appliance.store.queries import devices as device_rows
from appliance.store.queries import sessions as rows

if TYPE_CHECKING:
    from appliance.config.load import MeterSettings, Settings
    from appliance.domain.believed_clock import BelievedClock
    from appliance.network.address_pool import AddressPool
    from appliance.network.exit_node import Exit
    from appliance.network.wireguard.tunnel import Tunnel
    from appliance.sessions.address_quarantine import Addresses
    from appliance.sessions.batch_opens import Placement
    from appliance.sessions.convergence import Convergence
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.node import Node
    from appliance.sessions.reloading import Reloading
    from appliance.sessions.wakeup import Wakeup
    from appliance.store.database import Store


@dataclass(frozen=True, slots=True)
class Shared:
    """Holds what opening, ending and the ticker share."""

    records: Records
    peers: PeerAccess
    addresses: Addresses
    undo: Undo
    schedule: Schedule
    terms: Terms
    exit: Exit
    metrics: Metrics


def share(
    settings: Settings,
    store: Store,
    tunnel: Tunnel,
    addresses: Addresses,
    exit_: Exit,
    clock: BelievedClock,
    metrics: Metrics,
    wakeup: Wakeup,
    reject_after_ms: int,
) -> Shared:
    timeout = settings.wireguard.apply_timeout
    prompt, terms, live = TimedTunnel(tunnel, timeout), Terms(settings), LiveSessions()
    devices = LiveDevices()
    meter = Meter(store, prompt, live, devices, terms, clock, reject_after_ms)
    records = Records(store=store, live=live, devices=devices, meter=meter, clock=clock, ended=Ended())
    enforcement = Enforcement(live, terms, records.lending)
    addresses.quarantine.leave(devices.addresses())
    return Shared(
        records=records,
        peers=PeerAccess(tunnel=prompt, exit_lock=asyncio.Lock(), apply_timeout=timeout),
        addresses=addresses,
        undo=Undo(records, exit_, addresses.quarantine),
        schedule=Schedule(enforcement=enforcement, wakeup=wakeup, clock=clock),
        terms=terms,
        exit=exit_,
        metrics=metrics,
    )


def _build_queue(shared: Shared, reloading: Reloading, placement: Placement, node: Node) -> Queue:
    opens = BatchOpens(
        records=shared.records,
        pool=shared.addresses.pool,
        undo=shared.undo,
        placement=placement,
        exit_=shared.exit,
        terms=shared.terms,
        schedule=shared.schedule,
        metrics=shared.metrics,
    )
    closes = BatchCloses(
        records=shared.records,
        undo=shared.undo,
        quarantine=shared.addresses.quarantine,
        schedule=shared.schedule,
        metrics=shared.metrics,
    )
    batch = Batch(
        records=shared.records,
        peers=shared.peers,
        reloading=reloading,
        opens=opens,
        arrivals=_build_arrivals(shared, node),
        closes=closes,
        undo=shared.undo,
        quarantine=shared.addresses.quarantine,
    )

    def undo(request: Waiting[Any]) -> None:
        if isinstance(request, OpenRequest):
            opens.abandoned(request.answer.result())

    return Queue(batch.serve, undo)


def _build_arrivals(shared: Shared, node: Node) -> BatchArrivals:
    return BatchArrivals(
        records=shared.records,
        undo=shared.undo,
        node=node,
        terms=shared.terms,
        schedule=shared.schedule,
        metrics=shared.metrics,
    )


@dataclass(frozen=True, slots=True)
class Turning:
    """Holds what begins and ends sessions, and holds devices."""

    queue: Queue
    ending: Ending
    arrivals: Arrivals
    holding: Holding


def build_turning(shared: Shared, reloading: Reloading, placement: Placement, node: Node) -> Turning:
    queue = _build_queue(shared, reloading, placement, node)
    holding = Holding(records=shared.records, terms=shared.terms, node=node)
    arrivals = Arrivals(records=shared.records, queue=queue, refused=holding.changed)
    return Turning(queue, _build_ending(shared, queue), arrivals, holding)


def _build_ending(shared: Shared, queue: Queue) -> Ending:
    return Ending(
        records=shared.records,
        peers=shared.peers,
        queue=queue,
        undo=shared.undo,
        quarantine=shared.addresses.quarantine,
        schedule=shared.schedule,
        metrics=shared.metrics,
    )


def _build_turnover(shared: Shared, turning: Turning) -> Turnover:
    return Turnover(
        records=shared.records,
        ending=turning.ending,
        arrivals=turning.arrivals,
        holding=turning.holding,
        metrics=shared.metrics,
    )


def build_service(shared: Shared, turning: Turning) -> SessionService:
    quarantine = shared.addresses.quarantine
    opening = Opening(queue=turning.queue, peers=shared.peers, quarantine=quarantine, exit_=shared.exit)
    lookup = Lookup(store=shared.records.store, live=shared.records.live, ended=shared.records.ended)
    return SessionService(opening=opening, ending=turning.ending, lookup=lookup)


def build_ticker(
    shared: Shared,
    turning: Turning,
    convergence: Convergence,
    reloading: Reloading,
    node: Node,
    settings: MeterSettings,
) -> Ticker:
    return Ticker(
        records=shared.records,
        turnover=_build_turnover(shared, turning),
        convergence=convergence,
        reloading=reloading,
        node=node,
        schedule=shared.schedule,
        exit_lock=shared.peers.exit_lock,
        settings=settings,
        metrics=shared.metrics,
    )


async def recover(store: Store, pool: AddressPool) -> dict[int, bool]:
    """Takes up what the store holds: deletes pending rows of requests that were cut short, takes addresses in use.

    Returns the addresses' numbers, and whether each is one of both IP versions. Raises StoreUnavailable.
    """
    async with store.write() as db:
        await rows.delete_pending(db)
        held = await device_rows.places(db) | await rows.places(db)
    for offset in held:
        pool.reserve(offset)
    return held
