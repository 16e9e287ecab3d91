"""Joins what begins and ends in ticks: sessions that are due end, devices are held or let go, their sessions begin."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain.entities import Reason
from appliance.metering.device_handshakes import Handshake, unowned_bytes
from appliance.sessions import device_ends
from appliance.store.queries import devices as rows_of_devices

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from appliance.domain.entities import Session
    from appliance.metering.meter import Observation
    from appliance.sessions.arrivals import Arrivals
    from appliance.sessions.ending import Ending
    from appliance.sessions.holding import Holding
    from appliance.sessions.metrics import Metrics
    from appliance.sessions.records import Records

# Devices of one transaction: all may be put back, and take a kilobyte each meanwhile.
PUT_BACK_AT_ONCE = 250


class Turnover:
    """Begins and ends sessions for the ticker. Its methods must be called with the exit lock held."""

    def __init__(
        self, *, records: Records, ending: Ending, arrivals: Arrivals, holding: Holding, metrics: Metrics
    ) -> None:
        self._records = records
        self._ending = ending
        self._arrivals = arrivals
        self._holding = holding
        self._metrics = metrics

    def look(self, seen: Observation | None) -> None:
        """Holds devices or lets them go, and asks for sessions of those whose handshakes were found."""
        self._holding.look(self._records.clock.now() if seen is None else seen.now)
        if seen is not None:
            self._arrivals.look(seen)
            self._count_unowned(seen)

    def _count_unowned(self, seen: Observation) -> None:
        """Counts what is dropped of devices that were removed, or have another key, while they had no session."""
        for key, device in self._records.devices.take_gone().items():
            if self._records.live.get(key) is None:
                dump = seen.dump if self._records.devices.get(key) is None else None
                self._metrics.unowned_bytes.inc(unowned_bytes(device, dump, seen.now))

    async def finish_due(self, ending: Mapping[bytes, Reason]) -> bool:
        """Ends the sessions of these keys; returns whether those were all. Raises TunnelError or StoreUnavailable."""
        expiring = [self._records.live[key] for key, reason in ending.items() if reason is Reason.EXPIRED]
        all_ended = await self._ending.finish_due(ending)
        self._go_on(session for session in expiring if session.device_id)
        return all_ended

    def _go_on(self, expired: Iterable[Session]) -> None:
        """Begins the next sessions of devices where the tunnel can still carry."""
        now = self._records.clock.now()
        for session in expired:
            device = self._records.devices.get(session.public_key)
            if device is None or self._records.live.get(session.public_key) is not None:
                continue
            if session.carries_until_ms > now.boot_ms:
                handshake = Handshake(device.handshake_seen_ns, now, now.boot_ms, session.carries_until_ms, now)
                self._arrivals.begin(device, handshake)

    async def put_back(self, public_keys: Iterable[bytes]) -> None:
        """Prepares devices without sessions for putting their peers back: counters start at zero."""
        held, sessions = self._records.devices, self._records.live.public_keys()
        if not held:
            return
        keys = (key for key in public_keys if key not in sessions)
        found = (device for key in keys if (device := held.get(key)) is not None)
        while devices := list(islice(found, PUT_BACK_AT_ONCE)):
            async with self._records.committing() as db:
                await device_ends.write_restarted(db, devices)
            device_ends.restarted(held, devices)

    async def note_installed(self, public_keys: Container[bytes]) -> None:
        """Notes which new devices have got their peers."""
        held = self._records.devices
        devices = [held[key] for key in held.new() if key in public_keys]
        if devices:
            async with self._records.committing() as db:
                await rows_of_devices.mark_installed(db, [device.id for device in devices])
            for device in devices:
                held.update(replace(device, installed=True))

    def go_on(self) -> None:
        """Begins what batches have left because something failed, and the release of addresses."""
        self._ending.go_on()

    async def settled(self) -> None:
        """Waits until the sessions of requests that were given up are stored as closing."""
        await self._ending.settled()
