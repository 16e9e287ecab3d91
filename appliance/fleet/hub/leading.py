"""Takes part in deciding which hub leads: reads and writes the record that says so, as `lead` decides."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

import msgspec

from appliance.domain.errors import FleetError, StoreUnavailable
from appliance.fleet.hub.lead import Lead, LeadRecord
from appliance.fleet.hub.vacancy import FollowedNote, NoteSeen, Vacancy
from appliance.fleet.link.reading import Unreadable, read

if TYPE_CHECKING:
    from appliance.domain.clock import Clock, Moment
    from appliance.fleet.claims.records import KeptRecord, Versioned
    from appliance.fleet.hub.lead import Change, Followed, LeadWrite

log = logging.getLogger(__name__)

BUCKET, KEY = "lead", "lead"
NOTES = "followed."  # and the hub's id
LOOK_S = 0.5


class LeadRecords(Protocol):
    """Holds the record, on a majority of the hubs. Each method raises FleetError: what happened is not known."""

    async def get(self, key: str) -> Versioned: ...

    async def change(self, key: str, value: bytes, revision: int) -> int | None:
        """Makes or changes a record, and returns its new revision; None: it is not of that revision any more."""
        ...

    async def under(self, prefix: str) -> list[KeptRecord]: ...


class Progress(Protocol):
    """Tells how far this hub has followed, and what others say to have of its own changes."""

    async def followed(self, kept: Change | None) -> Followed:
        """Tells, too, whether it knows `kept`, which the record names. Raises StoreUnavailable."""
        ...

    def told(self) -> Change | None:
        """Returns the newest change of this hub's own that another hub has."""
        ...

    async def require_writable(self) -> None:
        """Raises StoreUnavailable if the store takes no writes now."""
        ...

    async def begin(self, gen: int) -> None:
        """Notes in the store that this hub leads that generation. Raises StoreUnavailable."""
        ...

    async def acknowledge(self, change: Change) -> None:
        """Notes in the store that a second hub has that change and all before it. Raises StoreUnavailable."""
        ...


async def appoint(records: LeadRecords, record: LeadRecord) -> bool:
    """Makes the record, and tells whether it did: it is there else. Raises FleetError."""
    found = await records.get(KEY)
    if found.value is not None:
        return False
    return await records.change(KEY, msgspec.json.encode(record), found.revision) is not None


class Leading:
    """Is one hub's part. `hub`: its node's id."""

    def __init__(self, hub: str, records: LeadRecords, progress: Progress, clock: Clock) -> None:
        self._hub = hub
        self._lead = Lead(hub)
        self._vacancy = Vacancy(hub)
        self._records = records
        self._progress = progress
        self._clock = clock
        self._awake = asyncio.Event()
        self._noted: Change | None = None  # that is acknowledged, in the store
        self.fault = ""
        self.sure: Moment | None = None  # when it was last known that this hub leads

    @property
    def leader(self) -> str | None:
        """Returns the id of the hub that leads, as far as this one knows."""
        return None if self._lead.record is None else self._lead.record.hub

    @property
    def gen(self) -> int | None:
        """Returns the generation that this hub leads, if it may; None: it does not lead, or may not for certain."""
        return self._lead.gen if self._lead.leads(self._clock.now().boot_ms) else None

    @property
    def lacks(self) -> bool:
        """Tells whether this hub lacks what was acknowledged: its store was rolled back, and another is to lead."""
        return self._lead.lacks

    @property
    def acknowledged(self) -> Change | None:
        """Returns the last of this hub's changes that may be acknowledged, with all before it; None: none."""
        return self._lead.acknowledged

    def wake(self) -> None:
        """Has it look at once, as another hub has told what it has."""
        self._awake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Looks until `stopping`."""
        ended = asyncio.ensure_future(stopping.wait())
        while not stopping.is_set():
            self._awake.clear()
            await self.look()
            woken = asyncio.ensure_future(self._awake.wait())
            await asyncio.wait((ended, woken), timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            woken.cancel()
        ended.cancel()

    async def look(self) -> None:
        """Looks once, and writes if it is this hub's turn. Does not raise: it is logged."""
        fault = ""
        try:
            await self._look()
        except (FleetError, StoreUnavailable) as error:
            self._lead.unread()
            self._vacancy.end()
            fault = str(error)
        if fault and fault != self.fault:
            log.warning("it is not known which hub leads: %s", fault)
        elif self.fault and not fault:
            log.info("it is known again which hub leads: %s", self.leader)
        self.fault = fault

    async def _look(self) -> None:
        found = await self._records.get(KEY)
        self._lead.read(_record(found.value), found.revision, self._clock.now().boot_ms)
        record = self._lead.record
        followed = await self._progress.followed(None if record is None else record.kept)
        if record is None:
            await self._fill(followed)
            return
        self._vacancy.end()
        write = self._lead.wanted(followed, self._progress.told(), self._clock.now().boot_ms)
        if write is not None:
            await self._write(write)
        if self.gen is not None:
            self.sure = self._clock.now()
        if (change := self.acknowledged) is not None and change != self._noted:
            await self._progress.acknowledge(change)
            self._noted = change

    async def _fill(self, followed: Followed) -> None:
        """Notes how far this hub has followed, as no hub is appointed, and appoints it if that is furthest of all."""
        now_ms, at = self._clock.now().boot_ms, followed.at
        note = self._vacancy.notes(at, now_ms)
        if note is not None:
            key = f"{NOTES}{self._hub}"
            await self._records.change(key, msgspec.json.encode(note), (await self._records.get(key)).revision)
        if not self._vacancy.is_long(now_ms):
            return
        notes = [_note(each) for each in await self._records.under(NOTES)]
        if self._vacancy.appoints(at, notes, now_ms):
            record = LeadRecord(self._hub, max(at.gen, followed.seen), at)
            if await appoint(self._records, record):
                log.warning("no hub was appointed: this one is, as it has followed most (generation %d)", at.gen)

    async def _write(self, write: LeadWrite) -> None:
        if write.record.gen != self._lead.gen:  # else the record would be kept from others that could lead
            await self._progress.require_writable()
        revision = await self._records.change(KEY, msgspec.json.encode(write.record), write.revision)
        if revision is None:
            return  # another hub was first; the next look says which
        if write.record.gen != self._lead.gen:
            await self._progress.begin(write.record.gen)
            log.warning("this hub leads the fleet now, in generation %d", write.record.gen)
        self._lead.written(write, revision)


def _note(found: KeptRecord) -> NoteSeen:
    try:
        return NoteSeen(found.key.removeprefix(NOTES), read(found.value, FollowedNote).at, found.revision)
    except Unreadable as error:
        raise FleetError(f"what a hub says to have followed is not understood: {error}") from error


def _record(value: bytes | None) -> LeadRecord | None:
    if value is None:
        return None
    try:
        return read(value, LeadRecord)
    except Unreadable as error:
        raise FleetError(f"the record of the hub that leads is not understood: {error}") from error
