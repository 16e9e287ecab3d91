"""Builds what lets any API of the fleet open, show and end sessions and devices on any exit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.fleet.accounts.accounts_here import AccountsHere
from appliance.fleet.owner.claimed_devices import ClaimedDevices
from appliance.fleet.owner.claimed_opening import ClaimedOpening, KeyClaims
from appliance.fleet.owner.command_claims import CommandClaims
from appliance.fleet.owner.device_owner import DeviceOwner
from appliance.fleet.owner.owner import OwningExit
from appliance.fleet.owner.served_ops import ServedOps
from appliance.fleet.owner.session_owner import SessionOwner
from appliance.fleet.reports.reported import ReportedByHub, ReportedHere, ReportsOwner
from appliance.fleet.routing.attempts import Placing
from appliance.fleet.routing.device_router import DeviceRouter
from appliance.fleet.routing.elsewhere import Elsewhere
from appliance.fleet.routing.quotas import FleetQuotas
from appliance.fleet.routing.session_router import SessionRouter
from appliance.fleet.rpc.exits import Exits
from appliance.fleet.rpc.intents import Intents
from appliance.store.queries import node as node_row

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from appliance.domain.clock import Clock
    from appliance.fleet.claims.claiming import Claims
    from appliance.fleet.reports.reported import Folds
    from appliance.fleet.rpc.exits import Call, FleetView
    from appliance.metering.lending import GrantSource
    from appliance.metering.usage import Quotas
    from appliance.sessions.devices.service import DeviceService
    from appliance.sessions.service import SessionService
    from appliance.store.database import Store
    from appliance.store.token_cache import Tokens


@dataclass(frozen=True, slots=True)
class ThisExit:
    """Holds what a single exit has, and its id in the fleet. `own_keys`: public keys that no client may use.
    `wake`: has the ticker look at what the store asks of it."""

    own_id: str
    region: str
    store: Store
    tokens: Tokens
    clock: Clock
    sessions: SessionService
    devices: DeviceService
    own_keys: Container[bytes]
    wake: Callable[[], None]


@dataclass(frozen=True, slots=True)
class TheFleet:
    """Holds how the rest of the fleet is reached. `patience_s`: for an exit to be found that opens a session.
    `folds`: what was reported to this host, if it is a hub; None: it asks `hub_id`. `may_drain`: whether an exit may
    drain this one."""

    view: FleetView
    call: Call
    claims: Claims
    folds: Folds | None
    hub_id: Callable[[], str | None]
    patience_s: float
    may_drain: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class AnyExit:
    """Holds the parts: `sessions`, `devices` and `quotas` for this host's API, `owner` for other exits' requests.

    `intents.run`, `command_claims.run` and `ops.run` are to be run for as long as the server does.
    """

    sessions: SessionRouter
    devices: DeviceRouter
    quotas: FleetQuotas
    owner: OwningExit
    intents: Intents
    ops: ServedOps
    elsewhere: Elsewhere
    key_claims: KeyClaims
    command_claims: CommandClaims


def build(here: ThisExit, fleet: TheFleet, quotas: Quotas, lending: GrantSource) -> AnyExit:
    """Builds the parts. `quotas`: this exit's own. `lending`: what other exits leave of accounts' limits."""
    exits = Exits(fleet.call)
    intents = Intents(here.store, exits, fleet.view, here.clock)
    placing = Placing(own_id=here.own_id, view=fleet.view, exits=exits, intents=intents, patience_s=fleet.patience_s)
    elsewhere = Elsewhere(here.own_id, fleet.view, exits, intents, placing)
    ops = ServedOps(here.store, here.clock)
    key_claims = KeyClaims(fleet.claims, intents, here.own_id)
    opening = ClaimedOpening(here.sessions, key_claims, lending)
    reported = ReportedByHub(exits, fleet.hub_id) if fleet.folds is None else ReportedHere(fleet.folds)
    changes = ClaimedDevices(here.devices, fleet.claims, key_claims)
    session_owner = SessionOwner(
        accounts=AccountsHere(here.store, here.tokens),
        sessions=here.sessions,
        devices=here.devices,
        opening=opening,
        ops=ops,
        own_keys=here.own_keys,
        clock=here.clock,
        quotas=quotas,
    )
    return AnyExit(
        sessions=SessionRouter(sessions=here.sessions, opening=opening, elsewhere=elsewhere, reported=reported),
        devices=DeviceRouter(devices=here.devices, changes=changes, elsewhere=elsewhere, region=here.region),
        quotas=FleetQuotas(quotas, elsewhere),
        owner=_owner(here, fleet, ops, changes, session_owner),
        intents=intents,
        ops=ops,
        elsewhere=elsewhere,
        key_claims=key_claims,
        command_claims=CommandClaims(here.store, fleet.claims, here.clock),
    )


def _owner(
    here: ThisExit, fleet: TheFleet, ops: ServedOps, changes: ClaimedDevices, sessions: SessionOwner
) -> OwningExit:
    accounts = AccountsHere(here.store, here.tokens)
    devices = DeviceOwner(accounts=accounts, devices=here.devices, changes=changes, ops=ops, own_keys=here.own_keys)

    async def drain(drained: bool) -> None:
        async with here.store.write() as db:
            await node_row.set_drained(db, drained=drained)
            await node_row.request(db)
        here.wake()

    reports = None
    if fleet.folds is not None:
        reports = ReportsOwner(accounts, ReportedHere(fleet.folds), here.clock)
    return OwningExit(
        sessions=sessions, devices=devices, reports=reports, ops=ops, drain=drain, may_drain=fleet.may_drain
    )
