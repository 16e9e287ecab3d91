"""Claims names and keys in the fleet for devices that commands on this host make, and gives them up."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from appliance.domain import device_name
from appliance.domain.errors import DeviceNameTaken, FleetError, InvalidRequest, KeyInUse, StoreUnavailable
from appliance.sessions.stopping import pause
from appliance.store.commits import StoreNews
from appliance.store.queries import devices, fleet_claims, fleet_requests
from appliance.store.queries.fleet_claims import Denial, DeviceClaim

if TYPE_CHECKING:
    from appliance.domain.clock import Clock
    from appliance.fleet.claims.claiming import Claims
    from appliance.store.database import Store
    from appliance.store.queries.fleet_requests import Intent

log = logging.getLogger(__name__)

LOOK_S = 0.25
PAUSE_S = 5.0  # while the store does not answer
RELEASE_MS = 5_000  # between two tries
PATIENCE_S = 1.5
WAITS_MS = 10_000  # a command waits for less
AT_ONCE = 100


class CommandClaims:
    """Does what commands have noted in the store, and notes there what came of it."""

    def __init__(self, store: Store, claims: Claims, clock: Clock) -> None:
        self._store = store
        self._claims = claims
        self._clock = clock
        self._news = StoreNews(store.commits)
        self._release_ms = 0  # when to try again to give up what was not: CLOCK_BOOTTIME

    async def run(self) -> None:
        """Looks for what is noted, several times a second, until it is cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                log.warning("what commands ask the fleet for is not known: %s", error)
                await asyncio.sleep(PAUSE_S)
            await pause(LOOK_S)

    async def look(self) -> None:
        """Does what is noted now. Raises StoreUnavailable."""
        if not self._news.is_any():
            return
        async with self._store.read() as db:
            asked = await fleet_claims.asked(db, AT_ONCE)
        if not asked:
            self._news.taken()
            return
        # In their order: a name that is given up late is not to be one that was claimed since.
        due = self._clock.now().boot_ms >= self._release_ms
        release = due or any(each.operation == fleet_claims.CLAIM for each in asked)
        for each in asked:
            if each.operation == fleet_claims.CLAIM:
                await self._claim(each)
            elif release and not await self._release(each):
                self._release_ms, release = self._clock.now().boot_ms + RELEASE_MS, False

    async def _claim(self, noted: Intent) -> None:
        waits = abs(self._clock.now().wall_ms - noted.at) < WAITS_MS
        denial = (
            await self._denial(msgspec.json.decode(noted.request, type=DeviceClaim)) if waits else Denial.UNANSWERED
        )
        async with self._store.write() as db:
            if denial is None:
                await fleet_requests.done(db, noted.number)
            else:
                await fleet_claims.deny(db, noted.number, denial)

    async def _denial(self, wish: DeviceClaim) -> Denial | None:
        """Claims; returns why that was not done, with nothing claimed, or None."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._claim_all(wish)
        except DeviceNameTaken:
            return Denial.NAME_TAKEN
        except (KeyInUse, InvalidRequest) as error:
            await self._give_up(DeviceClaim(wish.account_id, wish.op, wish.name))
            return Denial.KEY_IN_USE if isinstance(error, KeyInUse) else Denial.KEY_OF_ANOTHER
        except (FleetError, TimeoutError) as error:
            log.info("a device of a command was not claimed, as the ledger has not answered: %s", error)
            return Denial.UNANSWERED
        return None

    async def _claim_all(self, wish: DeviceClaim) -> None:
        if wish.name:
            await self._claims.claim_name(wish.account_id, device_name.key(wish.name), wish.op)
        if wish.public_key:
            await self._claims.claim_key(wish.public_key, wish.account_id, wish.op, device=True)

    async def _release(self, noted: Intent) -> bool:
        """Returns whether it is given up, or a device here has it."""
        wish = msgspec.json.decode(noted.request, type=DeviceClaim)
        async with self._store.read() as db:
            named = bool(wish.name) and await devices.by_name(db, wish.account_id, wish.name) is not None
            keyed = bool(wish.public_key) and await devices.by_key(db, wish.public_key) is not None
        free = msgspec.structs.replace(
            wish, name="" if named else wish.name, public_key=b"" if keyed else wish.public_key
        )
        if not await self._give_up(free):
            return False
        async with self._store.write() as db:
            await fleet_requests.done(db, noted.number)
        return True

    async def _give_up(self, wish: DeviceClaim) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_S):
                if wish.name:
                    await self._claims.release_name(wish.account_id, device_name.key(wish.name), wish.op)
                if wish.public_key:
                    await self._claims.release_key(wish.public_key, wish.op)
        except (FleetError, TimeoutError) as error:
            log.info("a device's name or key was not given up: %s", error)
            return False
        return True
