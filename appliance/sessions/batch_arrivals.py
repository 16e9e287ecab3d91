"""Opens the sessions of devices that have shaken hands: their peers are there, and their rows come."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.config.log_format import about
from appliance.domain import admission, clock_steps, ids
from appliance.domain.entities import Session, State
from appliance.domain.errors import ApplianceError, NoActiveNodes, StoreUnavailable
from appliance.domain.tiers import Tier
from appliance.metering import usage
from appliance.sessions.end_notes import ids_of
from appliance.sessions.waiting import Waiting
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import peers
from appliance.store.queries import sessions as rows
from appliance.store.queries import tokens as token_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import aiosqlite

    from appliance.config.plans import Terms
    from appliance.domain.clock import Moment
    from appliance.domain.device import Device
    from appliance.domain.entities import Account
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.node import Node
    from appliance.sessions.records import Records
    from appliance.sessions.schedule import Schedule
    from appliance.sessions.undo import Undo

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Handshake:
    """Holds a handshake of a device without a session: its kernel's time, when it was found, and until when it lets the
    tunnel carry (CLOCK_BOOTTIME). Since `unmoved_until` the peer's counters may have moved."""

    seen_ns: int
    found: Moment
    carries_until_ms: int
    unmoved_until: Moment


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
    account: Account
    session: Session


class BatchArrivals:
    """Opens sessions of devices. Its methods must be called with the exit lock held, in this order."""

    def __init__(
        self, *, records: Records, undo: Undo, node: Node, terms: Terms, schedule: Schedule, metrics: Metrics
    ) -> None:
        self._records = records
        self._undo = undo
        self._node = node
        self._terms = terms
        self._schedule = schedule
        self._metrics = metrics

    async def admit(self, requests: Sequence[Arrival]) -> list[Arriving]:
        """Decides which sessions may begin; answers the other requests."""
        if not requests:
            return []
        try:
            async with self._records.store.read() as db:
                accounts = await account_rows.by_ids(db, {request.device.account_id for request in requests})
        except StoreUnavailable as error:
            for request in requests:
                request.fail(error)
            return []
        arriving, opening = [], Counter[str]()
        for request in requests:
            try:
                arriving.append(self._admit(request, accounts.get(request.device.account_id), opening))
            except ApplianceError as error:
                request.fail(error)
        return arriving

    def _admit(self, request: Arrival, account: Account | None, opening: Counter[str]) -> Arriving:
        """`opening`: how many more sessions of each account the batch opens so far."""
        key, live, now = request.public_key, self._records.live, self._records.clock.now()
        device = self._records.devices.get(key)
        if device is None or account is None or account.disabled or not self._records.devices.may_connect(key):
            raise NoActiveNodes  # its peer is about to go
        if live.of_device(device.id) is not None:
            raise NoActiveNodes  # the session that it had with another key has yet to end
        tier = self._terms.tiers[account.tier]
        places = live.number_live(account.id) + opening[account.id] + self._undo.places(account.id)
        used = usage.in_memory(live, account, tier, now)
        decision = admission.decide(account, tier, places, live.get(key), used, request.handshake.found.wall_ms)
        if isinstance(decision, admission.Refuse):
            raise decision.error
        opening[account.id] += 1
        return Arriving(request, account, self._session(device, account, request.handshake, decision.expires_at))

    def _session(self, device: Device, account: Account, handshake: Handshake, expires_at: int) -> Session:
        """The session begins with the look that found the handshake."""
        found, told_ms = handshake.found, handshake.seen_ns // 1_000_000
        return Session(
            id=ids.session_id(),
            account_id=account.id,
            account=account.name,
            tier=account.tier,
            account_tier=account.tier,
            region=self._node.region,
            public_ip=self._node.public_ip,
            public_key=device.public_key,
            address_offset=device.address_offset,
            ipv6=device.ipv6,
            state=State.LIVE,
            created_at=found.wall_ms,
            expires_at=expires_at,
            bytes_in=0,
            bytes_out=0,
            last_handshake_at=clock_steps.handshake_at(told_ms, handshake.unmoved_until.wall_ms, found.wall_ms),
            handshake_seen_ns=handshake.seen_ns,
            quiet_since_ms=found.boot_ms,
            quiet_boot_id=found.boot_id,
            counted_ms=0,
            counted_until_ms=found.boot_ms,
            counted_boot_id=found.boot_id,
            carries_until_ms=handshake.carries_until_ms,
            rates=self._terms.rates if account.tier is Tier.PAID else None,
            reason=None,
            note="",
            terminated_at=None,
            device_id=device.id,
        )

    async def write(self, db: aiosqlite.Connection, arriving: Sequence[Arriving]) -> list[Arriving]:
        """Stores sessions in the caller's transaction and returns them; the caller must call `committed` with them.

        Leaves out those whose account an admin has disabled meanwhile, and all if the node was drained.
        """
        if not arriving:
            return []
        permits = await token_rows.permits(db, [(a.account.id, b"") for a in arriving])
        opened = [a for a, p in zip(arriving, permits, strict=True) if p.usable and not p.drained]
        await rows.insert(db, [(a.session, None) for a in opened])
        await peers.take_over_baselines(db, [a.session.device_id for a in opened])
        return opened

    def committed(self, opened: Iterable[Arriving]) -> None:
        """Takes the stored sessions into memory, and answers their requests."""
        records = self._records
        for a in opened:
            records.live.put(a.session, a.account)
            baseline = records.devices[a.session.public_key].baseline
            if baseline is not None:
                records.live.put_baseline(a.session.public_key, baseline)
            records.meter.note_moved(a.session.public_key, a.request.handshake.unmoved_until)
            self._schedule.opened(a.session)
            self._metrics.sessions_opened.labels(a.session.tier).inc()
            self._metrics.device_sessions_opened.inc()
            about_ = about(**ids_of(a.session), tier=a.session.tier, device=a.session.device_id)
            log.info("session of a device opened", extra=about_)
            a.request.succeed(a.session)

    def fail(self, arriving: Iterable[Arriving], error: Exception) -> None:
        """Answers the requests whose sessions were not opened."""
        for a in arriving:
            a.request.fail(error)
