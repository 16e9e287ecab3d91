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
        self._again: dict[bytes, Handshake] = {}  # whose sessions could not begin, and still may

    def look(self, seen: Observation) -> None:
        """Asks for a session for each device whose handshake this look has found, or an earlier one in vain."""
        devices, live = self._records.devices, self._records.live
        if not devices:
            return
        moved, again = self._records.meter.moved_in(seen.dump), self._again
        self._again = {}
        for key in {**again, **moved} if again else moved:
            device, sample = devices.get(key), seen.dump.peers.get(key)
            if device is None or sample is None or live.get(key) is not None:
                continue
            if sample.last_handshake_ns not in (0, device.handshake_seen_ns):
                before = again.get(key)
                if before is None or before.seen_ns != sample.last_handshake_ns:
                    before = self._handshake(sample, moved.get(key) or live.heartbeat, seen)
                self._ask(device, before)

    def go_on(self, device: Device, handshake: Handshake) -> None:
        """Asks for the next session of a device whose last one has ended while its tunnel can carry."""
        self._ask(device, handshake)

    def _handshake(self, sample: PeerState, before: Moment, seen: Observation) -> Handshake:
        """Returns a handshake, which counts from the look that finds it. What the first look finds was while this
        process was away, and counts from when it was."""
        now = seen.now
        was = handshakes.shaken(sample.last_handshake_ns, before, now, self._records.clock.ahead_ms)
        return Handshake(
            seen_ns=sample.last_handshake_ns,
            ifindex=seen.dump.ifindex,
            found=now,
            begins_ms=was.until_ms if seen.first else now.boot_ms,
            carries_until_ms=was.from_ms + self._records.meter.reject_after_ms,
            unmoved_until=before,
        )

    def _ask(self, device: Device, handshake: Handshake) -> None:
        if not self._records.devices.opens(device.public_key):
            return
        arrival = Arrival(device, handshake)
        arrival.answer.add_done_callback(lambda answer: self._answered(device, handshake, answer))
        self._queue.put(arrival)

    def _answered(self, device: Device, handshake: Handshake, answer: asyncio.Future[Session]) -> None:
        self._records.devices.opened(device.public_key)
        if not answer.cancelled() and (error := answer.exception()) is not None:
            log.info("no session for a device yet: %s", error, extra=about(device=device.id, account=device.account_id))
            self._again[device.public_key] = handshake
            self._refused(device.account_id)
