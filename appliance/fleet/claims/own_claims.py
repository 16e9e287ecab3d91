"""Claims the keys and names of this exit's sessions and devices, and claims them again before they lapse."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from appliance.domain import device_name
from appliance.domain.errors import DeviceNameTaken, FleetError, InvalidRequest, KeyInUse, NotAnswered
from appliance.fleet.accounts.sync_messages import LedgerRefusal
from appliance.fleet.claims.claiming import Whereabouts
from appliance.fleet.claims.claims import key_name
from appliance.fleet.claims.messages import (
    ClaimKey,
    ClaimName,
    Done,
    Granted,
    HeldKey,
    HeldName,
    Locate,
    Located,
    ReleaseKey,
    ReleaseName,
    Renew,
    SettleKey,
    Taken,
)
from appliance.fleet.claims.taken import MOST_SHOWN, NOTHING_TAKEN, TakenClaims
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.link.wire import PREFIX
from appliance.sessions.stopping import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from appliance.domain.clock import Clock
    from appliance.fleet.claims.messages import Claim, Release
    from appliance.fleet.link.wire import HubLink

log = logging.getLogger(__name__)

ANSWER_S = 0.7  # to each of two tries
RENEW_ANSWER_S = 10.0
LOOK_S = 30.0
RENEW_MS = 40 * 60_000
TAKEN_MS = 5 * 60_000  # where others have some: an operator mends that, and it is not to be told for long afterwards
AT_ONCE = 100  # claims that are renewed by one request
A_SECOND = 400  # of them
YOUNG_MS = 60_000  # a claim of which nothing is there yet may still come to something


class OwnKey(NamedTuple):
    """Names a session or a device of this exit that has a key. `shown`: ACCOUNT/NAME of a device."""

    public_key: bytes
    account_id: str
    id: str
    device: bool
    shown: str = ""


class OwnName(NamedTuple):
    """Names a device of this exit. `account`: its name."""

    account_id: str
    name: str
    account: str = ""

    @property
    def shown(self) -> str:
        return f"{self.account or self.account_id}/{self.name}"


class OwnClaims:
    """Implements Claims over the ledger. Names are claimed as they are compared.

    `keys`, `names`: of the live sessions and the devices that this exit has now. `holds`: whether a key is one of them;
    it is asked often.
    """

    def __init__(
        self,
        link: HubLink,
        node_id: str,
        fleet_key: bytes,
        clock: Clock,
        *,
        keys: Callable[[], Iterable[OwnKey]],
        names: Callable[[], Iterable[OwnName]],
        holds: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._link = link
        self._node_id = node_id
        self._fleet_key = fleet_key
        self._clock = clock
        self._keys = keys
        self._names = names
        self._holds = holds
        self.denied = 0  # claims
        self.taken = NOTHING_TAKEN
        self._claimed: dict[bytes, int] = {}  # by public key: CLOCK_BOOTTIME
        self._renew_ms = 0  # when all have to be claimed again

    # Claims --------------------------------------------------------------------------------------------

    async def claim_key(self, public_key: bytes, account_id: str, op: str, *, device: bool) -> Whereabouts | None:
        """Acts as Claims says."""
        self._claimed[public_key] = self._clock.now().boot_ms
        answer = await self._claim(ClaimKey(self._named(public_key), account_id, op, device))
        if isinstance(answer, Granted):
            return Whereabouts(answer.node, answer.id) if answer.node and answer.id else None
        self.denied += 1
        if isinstance(answer, Taken) and answer.by == "account":
            raise InvalidRequest("client_public_key is in use by another account")
        raise KeyInUse

    async def settle_key(self, public_key: bytes, account_id: str, op: str, made_id: str, *, device: bool) -> bool:
        """Acts as Claims says."""
        self._claimed[public_key] = self._clock.now().boot_ms
        answer = await self._claim(SettleKey(self._named(public_key), account_id, op, made_id, device))
        return not (isinstance(answer, Done) and answer.lost)

    async def release_key(self, public_key: bytes, op: str) -> None:
        """Acts as Claims says."""
        await self._ask("release", ReleaseKey(self._named(public_key), op))

    async def claim_name(self, account_id: str, name: str, op: str) -> None:
        """Acts as Claims says."""
        if isinstance(await self._claim(ClaimName(account_id, device_name.key(name), op)), Taken):
            self.denied += 1
            raise DeviceNameTaken

    async def release_name(self, account_id: str, name: str, op: str = "") -> None:
        """Acts as Claims says."""
        await self._ask("release", ReleaseName(account_id, device_name.key(name), op))

    async def locate(self, id_: str) -> str | None:
        """Returns which exit has a session or device, by the ledger; None if it is not known. Raises FleetError."""
        answer = await self._ask("locate", Locate(id_))
        return answer.node or None if isinstance(answer, Located) else None

    # What was claimed ----------------------------------------------------------------------------------

    def claim_again(self) -> None:
        """Has all that this exit has claimed again: the ledger has lost it."""
        self._renew_ms = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Renews claims, and gives up those whose session or device is gone, until `stopping`."""
        while not stopping.is_set():
            await self.look()
            await wait(stopping, LOOK_S)

    async def look(self) -> None:
        """Does what is due. Does not raise: what the ledger has not heard is due again."""
        if not self._link.connected:
            return
        try:
            await self._release_gone()
            if self._clock.now().boot_ms >= self._renew_ms:
                await self._renew()
        except FleetError as error:
            log.info("claims were not renewed: %s", error)

    async def _release_gone(self) -> None:
        young = self._clock.now().boot_ms - YOUNG_MS
        old = [key for key, at in self._claimed.items() if at <= young]
        if not old:
            return
        holds = self._holds or {key.public_key for key in self._keys()}.__contains__
        for key in [key for key in old if not holds(key)]:
            at = self._claimed.pop(key)
            try:
                if at <= young:  # it was not claimed again meanwhile
                    await self.release_key(key, "")
                    continue
            except FleetError:
                self._claimed.setdefault(key, at)
                raise
            self._claimed[key] = at

    async def _renew(self) -> None:
        """Claims everything again, at a bounded rate."""
        self._renew_ms = self._clock.now().boot_ms + RENEW_MS
        lost, whose = 0, set[str]()
        try:
            held: list[OwnKey | OwnName] = [*self._keys(), *self._names()]  # at once: they change
            for first in range(0, len(held), AT_ONCE):
                page = held[first : first + AT_ONCE]
                answer = await self._ask("claim", self._renewal(page), RENEW_ANSWER_S)
                if isinstance(answer, Done):
                    lost += answer.lost
                    whose.update(page[at].shown or "a session" for at in answer.lost_at if 0 <= at < len(page))
                await asyncio.sleep(AT_ONCE / A_SECOND)
        except FleetError:
            self._renew_ms = 0
            raise
        taken = TakenClaims(lost, tuple(sorted(whose)[:MOST_SHOWN]))
        if taken != self.taken and lost:
            log.warning("keys or names of devices here that another exit has too: %s", taken)
        self.taken = taken
        if taken.number:
            self._renew_ms = self._clock.now().boot_ms + TAKEN_MS

    def _renewal(self, held: Sequence[OwnKey | OwnName]) -> Renew:
        keys = [each for each in held if isinstance(each, OwnKey)]
        for key in keys:
            self._claimed.setdefault(key.public_key, 0)
        return Renew(
            [HeldKey(self._named(key.public_key), key.account_id, key.id, key.device) for key in keys],
            [HeldName(each.account_id, device_name.key(each.name)) for each in held if isinstance(each, OwnName)],
        )

    def _named(self, public_key: bytes) -> str:
        return key_name(self._fleet_key, public_key)

    # Asking --------------------------------------------------------------------------------------------

    async def _claim(self, asked: Claim) -> object:
        try:
            return await self._ask("claim", asked)
        except FleetError:
            # The exit goes on alone, and has to claim what it makes meanwhile.
            self.claim_again()
            raise

    async def _ask(self, operation: str, asked: Claim | Release | Locate, timeout_s: float = ANSWER_S) -> object:
        """Returns the answer. An answer that was lost is asked for once more. Raises FleetError."""
        subject, data = f"{PREFIX}.led.{self._node_id}.{operation}", msgspec.json.encode(asked)
        try:
            answer = await self._link.request(subject, data, timeout_s)
        except NotAnswered:
            answer = await self._link.request(subject, data, timeout_s)
        try:
            found = read(answer, Granted | Taken | Done | Located | LedgerRefusal)
        except Unreadable as error:
            raise NotAnswered(f"the ledger's answer is not understood: {error}") from error
        if isinstance(found, LedgerRefusal):
            raise NotAnswered(f"the ledger: {found.error}")
        return found
