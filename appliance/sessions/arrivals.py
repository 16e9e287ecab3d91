"""Finds devices that have shaken hands while they had no session, and has the next batch open one for each."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.config.log_format import about
from appliance.metering import handshakes
from appliance.sessions.batch_arrivals import Arrival, Handshake

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from appliance.domain.clock import Moment
    from appliance.domain.device import Device
    from appliance.domain.entities import Session
    from appliance.metering.meter import Observation
    from appliance.network.wireguard.tunnel import PeerState
    from appliance.sessions.records import Records
    from appliance.sessions.waiting import Queue

log = logging.getLogger(__name__)


class Arrivals:
    """Opens sessions of devices. `refused` is called with the account of a device that may not have one now."""

    def __init__(
        self,
        *,
        records: Records,
        queue: Queue,
        refused: Callable[[str], None],
    ) -> None:
        self._records = records
        self._queue = queue
        self._refused = refused
        self._asking: set[bytes] = set()

    def look(self, seen: Observation) -> None:
        """Asks for a session for each device whose handshake this look has found."""
        devices, live = self._records.devices, self._records.live
        for key, quiet in self._records.meter.moved_in(seen.dump).items() if devices else ():
            device, sample = devices.get(key), seen.dump.peers.get(key)
            if device is None or sample is None or key in self._asking or live.get(key) is not None:
                continue
            if sample.last_handshake_ns not in (0, device.handshake_seen_ns):
                self._ask(device, self._handshake(sample, quiet or live.heartbeat, seen.now))

    def go_on(self, device: Device, handshake: Handshake) -> None:
        """Asks for the next session of a device whose last one has ended while its tunnel can carry."""
        self._ask(device, handshake)

    def _handshake(self, sample: PeerState, before: Moment, now: Moment) -> Handshake:
        was = handshakes.shaken(sample.last_handshake_ns, before, now, self._records.clock.ahead_ms)
        return Handshake(sample.last_handshake_ns, now, was.from_ms + self._records.meter.reject_after_ms, before)

    def _ask(self, device: Device, handshake: Handshake) -> None:
        arrival = Arrival(device, handshake)
        self._asking.add(device.public_key)
        arrival.answer.add_done_callback(lambda answer: self._answered(device, answer))
        self._queue.put(arrival)

    def _answered(self, device: Device, answer: asyncio.Future[Session]) -> None:
        self._asking.discard(device.public_key)
        if not answer.cancelled() and (error := answer.exception()) is not None:
            log.info("no session for a device: %s", error, extra=about(device=device.id, account=device.account_id))
            self._refused(device.account_id)
