"""Has the next batch open a session for each device that has shaken hands while it had none."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from appliance.config.log_format import about
from appliance.sessions.batch_arrivals import Arrival

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.device import Device
    from appliance.domain.entities import Account, Session
    from appliance.metering.device_handshakes import Handshake
    from appliance.metering.lending import SessionPlace
    from appliance.metering.meter import Observation
    from appliance.sessions.records import Records
    from appliance.sessions.waiting import Queue

log = logging.getLogger(__name__)

ASKING_AT_ONCE = 8  # devices for which the ledger is asked: those that arrive together keep no other opening waiting


class Arrivals:
    """Opens sessions of devices. `refused` is called with the account of a device whose session has not begun."""

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
        self._asked: dict[bytes, asyncio.Future[Session]] = {}  # by public key
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking = asyncio.Semaphore(ASKING_AT_ONCE)

    def look(self, seen: Observation) -> None:
        """Asks for a session for each device whose handshake was found, by this look or another, and has none yet."""
        handshakes = self._records.meter.device_handshakes
        for key, handshake in handshakes.waiting(self._records.live.public_keys(), seen.dump).items():
            self.begin(self._records.devices[key], handshake)

    def begin(self, device: Device, handshake: Handshake) -> None:
        """Asks for a session of a device, whose tunnel can carry by this handshake."""
        if not self._records.devices.opens(device.public_key):
            return
        arrival = Arrival(device, handshake)
        self._asked[device.public_key] = arrival.answer
        arrival.answer.add_done_callback(lambda answer: self._answered(arrival, answer))
        grants, account = self._records.lending.grants, self._account(device)
        if grants is None or account is None:
            self._queue.put(arrival)
            return
        task = asyncio.create_task(self._ask_first(grants.place(account), arrival))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _account(self, device: Device) -> Account | None:
        return next(iter(self._records.live.owners_among([device.account_id])), None)

    async def _ask_first(self, place: SessionPlace, arrival: Arrival) -> None:
        """Asks the other exits for room before the session begins."""
        with place:
            async with self._asking:
                await place.ask()
            self._queue.put(arrival)
            await asyncio.wait([arrival.answer])

    def asked(self, public_key: bytes) -> asyncio.Future[Session] | None:
        """Returns the answer, perhaps to come, to the request for a session of a device; None: there is no request."""
        return self._asked.get(public_key)

    def _answered(self, arrival: Arrival, answer: asyncio.Future[Session]) -> None:
        device, handshakes = arrival.device, self._records.meter.device_handshakes
        self._asked.pop(device.public_key, None)
        self._records.devices.opened(device.public_key)
        if answer.cancelled():
            return
        if (error := answer.exception()) is None:
            handshakes.begun(device.public_key)
            return
        log.info("no session for a device yet: %s", error, extra=about(device=device.id, account=device.account_id))
        handshakes.keep(device.public_key, arrival.handshake)
        self._refused(device.account_id)
