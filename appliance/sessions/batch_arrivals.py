"""Opens the sessions of devices that have shaken hands: their peers are there, and their rows come."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.config.log_format import about
from appliance.domain import admission, clock_steps
from appliance.domain.device import decide
from appliance.domain.entities import Session, State
from appliance.domain.errors import ApplianceError, NoActiveNodes
from appliance.metering.spending import Count
from appliance.sessions.batch_accounts import accounts_of
from appliance.sessions.device_circumstances import without_session
from appliance.sessions.end_notes import ids_of
from appliance.sessions.new_session import new_session
from appliance.sessions.waiting import Waiting
from appliance.store.queries import devices as rows_of_devices
from appliance.store.queries import invoices, peers
from appliance.store.queries import sessions as rows
from appliance.store.queries import tokens as token_rows

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Mapping, Sequence

    import aiosqlite

    from appliance.config.plans import Terms
    from appliance.domain.device import Device
    from appliance.domain.entities import Account, Reason
    from appliance.metering.device_handshakes import Handshake
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.node import Node
    from appliance.sessions.records import Records
    from appliance.sessions.schedule import Schedule
    from appliance.sessions.undo import Undo

log = logging.getLogger(__name__)


class Arrival(Waiting[Session]):
    """Asks for a session of a device."""

    def __init__(self, device: Device, handshake: Handshake) -> None:
        super().__init__(device.public_key)
        self.device = device
        self.handshake = handshake


@dataclass(frozen=True, slots=True)
class Arriving:
    """Holds a session of a device that may begin, and is not stored yet."""

    request: Arrival
    device: Device
    account: Account
    session: Session


@dataclass(frozen=True, slots=True)
class Arrived:
    """Holds the sessions that a transaction has stored, and what was counted for them in it."""

    arriving: Sequence[Arriving]
    count: Count


class BatchArrivals:
    """Opens sessions of devices. Its methods must be called with the exit lock held, in this order.

    Where the device may not connect, the session is one that is about to end, and has what was moved until then.
    """

    def __init__(
        self, *, records: Records, undo: Undo, node: Node, terms: Terms, schedule: Schedule, metrics: Metrics
    ) -> None:
        self._records = records
        self._undo = undo
        self._node = node
        self._terms = terms
        self._schedule = schedule
        self._metrics = metrics

    async def admit(self, requests: Sequence[Arrival], opening: Counter[str]) -> list[Arriving]:
        """Decides how the sessions begin; answers the requests of those that cannot.

        `opening`: how many more sessions of each account the batch opens so far; these are added.
        """
        asked = [(request, request.device.account_id) for request in requests]
        if (accounts := await accounts_of(self._records.store, asked)) is None:
            return []
        arriving = []
        for request in requests:
            try:
                arriving.append(self._admit(request, accounts.get(request.device.account_id), opening))
            except ApplianceError as error:
                request.fail(error)
        return arriving

    def _admit(self, request: Arrival, account: Account | None, opening: Counter[str]) -> Arriving:
        live, now = self._records.live, self._records.clock.now()
        device = self._records.devices.get(request.public_key)
        if device is None or account is None:
            raise NoActiveNodes  # its peer is about to go
        if live.of_device(device.id) is not None:
            raise NoActiveNodes  # the session that it had with another key has yet to end
        tier = self._terms.tiers[account.tier]
        places = opening[account.id] + self._undo.places(account.id)
        circumstances = without_session(
            live,
            account,
            tier,
            now,
            paused=device.paused,
            drained=self._node.drained,
            opening=places,
            lent=self._records.lending.lent,
        )
        reason = decide(circumstances).reason
        opening[account.id] += reason is None
        return Arriving(request, device, account, self._session(device, account, request.handshake, reason))

    def _session(self, device: Device, account: Account, handshake: Handshake, reason: Reason | None) -> Session:
        """The session begins with its handshake. `reason`: why it is about to end; None: it is not."""
        found = handshake.found
        begins_at = found.wall_ms - (found.boot_ms - handshake.begins_ms)
        session = new_session(
            account,
            self._node,
            self._terms.rates,
            public_key=device.public_key,
            address_offset=device.address_offset,
            ipv6=device.ipv6,
            now=found,
            expires_at=admission.expires_at(self._terms.tiers[account.tier], begins_at),
        )
        told_ms = handshake.seen_ns // 1_000_000
        return replace(
            session,
            device_id=device.id,
            created_at=begins_at,
            state=State.LIVE if reason is None else State.CLOSING,
            reason=reason,
            last_handshake_at=clock_steps.handshake_at(told_ms, handshake.unmoved_until.wall_ms, found.wall_ms),
            handshake_seen_ns=handshake.seen_ns,
            counted_until_ms=handshake.begins_ms,
            carries_until_ms=handshake.carries_until_ms if reason is None else 0,
        )

    async def write(
        self, db: aiosqlite.Connection, arriving: Sequence[Arriving], before: Mapping[str, Account]
    ) -> Arrived:
        """Stores sessions in the caller's transaction; the caller must call `committed` with what it returns.

        `before`: the accounts as the transaction has written them already. Leaves out sessions of devices and accounts
        that a command has changed meanwhile, and all if the node was drained: how they begin is decided again once
        memory has the same.
        """
        if not arriving:
            return Arrived([], Count([], {}, {}))
        standing = await rows_of_devices.standing(db, [a.device.id for a in arriving])
        permits = await token_rows.permits(db, [(a.account.id, b"") for a in arriving])
        opened = [a for a, permit in zip(arriving, permits, strict=True) if self._stands(a, permit, standing)]
        sessions = [a.session for a in opened]
        await rows.insert(db, [(session, None) for session in sessions])
        counted = [(a.session.address_offset, base) for a in opened if (base := a.device.baseline) is not None]
        await peers.put_baselines(db, counted)
        await rows_of_devices.forget_unfinished(db, [a.device.id for a in opened])
        for session in sessions:
            await invoices.begin(db, [session], session.created_at)
        count = self._records.meter.count_unfinished([(a.session, a.device) for a in opened], before)
        await self._records.meter.write(db, count)
        return Arrived(opened, count)

    def _stands(self, a: Arriving, permit: token_rows.Permit, standing: Mapping[str, tuple[bytes, bool]]) -> bool:
        if standing.get(a.device.id) != (a.device.public_key, a.device.paused):
            return False
        return (permit.usable, permit.drained) == (not a.account.disabled, self._node.drained)

    def committed(self, begun: Arrived) -> None:
        """Takes the stored sessions into memory, and answers their requests."""
        records = self._records
        for a in begun.arriving:
            records.live.put(a.session, a.account)
            if a.device.baseline is not None:
                records.live.put_baseline(a.session.public_key, a.device.baseline)
            records.devices.put(replace(records.devices[a.session.public_key], unfinished_rx=0, unfinished_tx=0))
            records.meter.note_moved(a.session.public_key, a.request.handshake.unmoved_until)
            self._schedule.opened(a.session)
            if a.session.state is State.CLOSING:
                self._schedule.check_soon()
            self._metrics.sessions_opened.labels(a.session.tier).inc()
            self._metrics.device_sessions_opened.inc()
            about_ = about(**ids_of(a.session), tier=a.session.tier, device=a.session.device_id)
            log.info("session of a device opened", extra=about_)
            a.request.succeed(a.session)
        records.meter.apply(begun.count)

    def fail(self, arriving: Iterable[Arriving], error: Exception) -> None:
        """Answers the requests whose sessions were not opened."""
        for a in arriving:
            a.request.fail(error)
