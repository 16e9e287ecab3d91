"""A hub's part in deciding which one leads: what it reads, writes and notes, and what it does where that fails."""

from __future__ import annotations

import asyncio
import logging

import msgspec
import pytest

from appliance.domain.errors import CutOff, FleetError, NotAnswered, StoreUnavailable
from appliance.fleet.claims.records import KeptRecord, Versioned
from appliance.fleet.hub.lead import BEAT_MS, LEASE_MS, TAKE_MS, Change, Followed, LeadRecord
from appliance.fleet.hub.leading import KEY, NOTES, Leading, appoint
from appliance.fleet.hub.vacancy import GONE_MS, NOTE_MS, PATIENCE_MS, FollowedNote
from tests.support.virtual_clock import VirtualClock

FIRST = Change(1, 5, "m5")
OF_AMS = LeadRecord("ams", 1, FIRST)


class OneRecord:
    """`fault`: what reading raises; `lost`: of the next write the answer is lost, taken or not. `notes`: of hubs."""

    def __init__(self) -> None:
        self.value: bytes | None = None
        self.revision = 0
        self.fault: FleetError | None = None
        self.lost: bool | None = None
        self.notes: dict[str, KeptRecord] = {}
        self.noted = 0

    async def get(self, key: str) -> Versioned:
        if self.fault is not None:
            raise self.fault
        if key != KEY:
            found = self.notes.get(key)
            return Versioned(None, 0) if found is None else Versioned(found.value, found.revision)
        return Versioned(self.value, self.revision)

    async def under(self, prefix: str) -> list[KeptRecord]:
        assert prefix == NOTES
        return list(self.notes.values())

    def note(self, key: str, value: bytes) -> int:
        self.noted += 1
        self.notes[key] = KeptRecord(key, value, self.noted)
        return self.noted

    async def change(self, key: str, value: bytes, revision: int) -> int | None:
        if key != KEY:
            return self.note(key, value)
        lost, self.lost = self.lost, None
        if revision != self.revision:
            return None
        if lost is not False:
            self.value, self.revision = value, self.revision + 1
        if lost is not None:
            raise NotAnswered("lost")
        return self.revision

    @property
    def record(self) -> LeadRecord:
        assert self.value is not None
        return msgspec.json.decode(self.value, type=LeadRecord)


class KnownProgress:
    """Has followed `at`; `others` have of it what they have. `full`: its store takes no writes; `fails`: only later."""

    def __init__(self) -> None:
        self.at = FIRST
        self.others: Change | None = None
        self.full = self.fails = False
        self.begun: list[int] = []
        self.noted: list[Change] = []

    async def followed(self, kept: Change | None) -> Followed:
        assert kept is None or kept.gen
        return Followed(self.at)

    def told(self) -> Change | None:
        return self.others

    async def acknowledge(self, change: Change) -> None:
        self.noted.append(change)

    async def require_writable(self) -> None:
        if self.full:
            raise StoreUnavailable

    async def begin(self, gen: int) -> None:
        if self.fails:
            raise StoreUnavailable
        self.begun.append(gen)
        self.at = Change(gen, self.at.rev, self.at.mark)


class HubUnderTest:
    """The hub fra, beside ams, which leads; `after` looks once, so many ms later."""

    def __init__(self) -> None:
        self.records, self.progress, self.clock = OneRecord(), KnownProgress(), VirtualClock()
        assert asyncio.run(appoint(self.records, OF_AMS))
        self.part = Leading("fra", self.records, self.progress, self.clock)

    def after(self, ms: int) -> None:
        self.clock.advance(ms / 1000)
        asyncio.run(self.part.look())


@pytest.fixture
def hub() -> HubUnderTest:
    return HubUnderTest()


def test_the_first_leader_is_appointed_once(hub: HubUnderTest) -> None:
    """By whoever makes the record; it is never made over one that is there."""
    assert not asyncio.run(appoint(hub.records, LeadRecord("lon", 9, FIRST)))
    assert hub.records.record == OF_AMS
    hub.after(0)
    assert (hub.part.leader, hub.part.gen) == ("ams", None)


def test_a_hub_whose_store_takes_no_writes_leaves_the_record_to_others(hub: HubUnderTest) -> None:
    """Else it would change it for ever, and no other hub see it unchanged for as long as it takes to lead."""
    hub.progress.full = True
    hub.after(0)
    for _ in range(5):
        hub.after(TAKE_MS)
    assert (hub.records.record, hub.part.gen) == (OF_AMS, None)
    hub.progress.full = False
    hub.after(0)
    hub.after(TAKE_MS)
    assert hub.part.gen == 2


def test_a_hub_that_lacks_what_is_kept_leads_no_longer(hub: HubUnderTest) -> None:
    """Its machine was rolled back, with its memory: the generation goes on, and what a second hub has is gone."""
    hub.after(0)
    hub.after(TAKE_MS)
    hub.progress.at = hub.progress.others = Change(2, 9, "nine")
    hub.after(BEAT_MS)
    assert (hub.part.gen, hub.part.acknowledged, hub.part.lacks) == (2, Change(2, 9, "nine"), False)
    hub.progress.at = Change(2, 5, "five")
    hub.after(BEAT_MS)
    assert (hub.part.gen, hub.part.acknowledged, hub.part.lacks) == (None, None, True)
    hub.after(2 * TAKE_MS)
    assert hub.part.gen is None


def test_it_leads_once_that_is_in_its_store(hub: HubUnderTest) -> None:
    """Where it cannot be written there it does not lead, and tries in another generation."""
    hub.progress.fails = True
    hub.after(0)
    hub.after(TAKE_MS)
    assert hub.records.record == LeadRecord("fra", 2, FIRST)
    assert hub.part.gen is None
    hub.progress.fails = False
    hub.after(1)
    assert (hub.progress.begun, hub.part.gen) == ([3], 3)
    assert hub.part.acknowledged is None
    hub.progress.others = Change(3, 6, "m6")
    hub.after(1)
    assert hub.part.acknowledged == hub.records.record.kept == Change(3, 6, "m6")


@pytest.mark.parametrize("taken", [True, False])
def test_a_write_whose_answer_is_lost_acknowledges_nothing(hub: HubUnderTest, *, taken: bool) -> None:
    """Whether or not it was taken; what is written next does."""
    hub.after(0)
    hub.after(TAKE_MS)
    hub.progress.at = hub.progress.others = Change(2, 6, "m6")
    hub.records.lost = taken
    before = hub.part.gen
    hub.after(1)
    assert (hub.part.gen, hub.part.acknowledged) == (before, None)
    hub.after(BEAT_MS)
    assert hub.part.acknowledged == Change(2, 6, "m6")


def test_a_leader_that_is_cut_off_leads_for_a_while(hub: HubUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    """Until its lease is over; that is said once, and so is the end of it."""
    caplog.set_level(logging.INFO)
    hub.after(0)
    hub.after(TAKE_MS)
    caplog.clear()
    hub.records.fault = CutOff("gone")
    hub.after(LEASE_MS - 1)
    assert hub.part.gen == 2
    hub.after(1)
    assert hub.part.gen is None
    hub.records.fault = None
    hub.after(1)
    assert hub.part.gen == 2
    assert [record.getMessage() for record in caplog.records] == [
        "it is not known which hub leads: gone",
        "it is known again which hub leads: fra",
    ]


@pytest.mark.parametrize("value", [b"", b"{}", b"[" * 100_000, b'{"hub":1}'])
def test_a_record_that_is_not_understood_is_left_alone(hub: HubUnderTest, value: bytes) -> None:
    """Of a newer version, perhaps."""
    hub.records.value = value
    hub.after(0)
    hub.after(2 * TAKE_MS)
    assert (hub.records.value, hub.part.gen) == (value, None)


def test_it_looks_again_at_once_when_woken(hub: HubUnderTest) -> None:
    """What another hub has told is acknowledged soon."""

    async def story() -> None:
        stopping = asyncio.Event()
        running = asyncio.ensure_future(hub.part.run(stopping))
        while hub.part.leader is None:  # noqa: ASYNC110 (it sets no event)
            await asyncio.sleep(0)
        hub.records.value = msgspec.json.encode(LeadRecord("lon", 2, FIRST))
        hub.records.revision += 1
        hub.part.wake()
        async with asyncio.timeout(30):
            while hub.part.leader != "lon":  # noqa: ASYNC110 (it sets no event)
                await asyncio.sleep(0)
        stopping.set()
        await running

    asyncio.run(story())


@pytest.fixture
def vacant(hub: HubUnderTest) -> HubUnderTest:
    hub.records.value, hub.records.revision = None, 0
    hub.after(0)
    return hub


def test_a_hub_appoints_itself_where_nobody_is(vacant: HubUnderTest) -> None:
    """After a while, and leads in the generation after that which it has followed."""
    vacant.after(PATIENCE_MS - 1)
    assert vacant.records.value is None
    assert [msgspec.json.decode(each.value, type=FollowedNote).at for each in vacant.records.notes.values()] == [FIRST]
    vacant.after(1)
    assert vacant.records.record == LeadRecord("fra", 1, FIRST)
    vacant.after(1)
    assert (vacant.progress.begun, vacant.part.gen, vacant.records.record.kept) == ([2], 2, FIRST)


@pytest.mark.parametrize(
    ("hub_id", "other", "waits"),
    [
        ("lon", Change(1, 6, "m6"), True),
        ("lon", Change(2, 1, "m1"), True),
        ("lon", FIRST, True),
        ("ams", FIRST, False),
        ("lon", Change(1, 4, "m4"), False),
    ],
)
def test_it_waits_for_one_that_has_followed_more(
    vacant: HubUnderTest, hub_id: str, other: Change, *, waits: bool
) -> None:
    """As long as that one goes on noting it. Of two that are as far, one is chosen by its id."""
    note = msgspec.json.encode(FollowedNote(other))
    for _ in range(PATIENCE_MS // NOTE_MS + 3):
        vacant.records.note(f"{NOTES}{hub_id}", note)
        vacant.after(NOTE_MS)
    assert (vacant.records.value is None) is waits
    vacant.after(GONE_MS)
    assert vacant.records.record.hub == "fra"


def test_one_that_has_followed_nothing_is_not_appointed(vacant: HubUnderTest) -> None:
    vacant.progress.at = Change(0, 0, "")
    vacant.after(PATIENCE_MS)
    vacant.after(PATIENCE_MS)
    assert vacant.records.value is None


def test_it_counts_anew_where_it_could_not_see_whether_one_is_appointed(vacant: HubUnderTest) -> None:
    vacant.records.fault = CutOff("gone")
    vacant.after(PATIENCE_MS)
    vacant.records.fault = None
    vacant.after(1)
    vacant.after(PATIENCE_MS - 1)
    assert vacant.records.value is None
    vacant.after(1)
    assert vacant.records.record.hub == "fra"


def test_one_that_another_has_appointed_meanwhile_stays(vacant: HubUnderTest) -> None:
    """The record is made once."""
    vacant.after(PATIENCE_MS - 1)
    vacant.records.value, vacant.records.revision = msgspec.json.encode(OF_AMS), 1
    vacant.after(1)
    vacant.after(TAKE_MS - 1)
    assert vacant.records.record == OF_AMS


def test_a_note_that_is_not_understood_appoints_nobody(vacant: HubUnderTest) -> None:
    """Of a newer version, perhaps."""
    vacant.records.note(f"{NOTES}lon", b"[]")
    vacant.after(PATIENCE_MS)
    assert vacant.records.value is None
    assert "not understood" in vacant.part.fault
