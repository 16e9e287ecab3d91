"""Three hubs that decide by `Lead`, in a world that pauses, kills and rolls them back, and loses or delays writes.

What is checked at each step is said in `LeadWorld.check`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from appliance.fleet.hub.lead import Change, Followed, Lead, LeadRecord, LeadWrite
from appliance.fleet.hub.vacancy import NoteSeen, Vacancy

if TYPE_CHECKING:
    import random

NAMES = ("fra", "ams", "lon")
FAULTS_MS, HEALED_MS = 90_000, 60_000
LONGEST_PAUSE_MS = 15_000
FIRST = "c0"
NOTHING = Change(0, 0, "")


@dataclass
class OnDisk:
    """What a hub keeps. `led`: the generation of these changes is its own. `kept`: the last of them of which it knows
    that it is acknowledged; `yielded`: it follows that one's successor, of whose generation it has nothing yet. `base`:
    what it began its generation with, of the one before."""

    gen: int
    log: list[str]
    led: bool
    kept: Change = NOTHING
    yielded: bool = False
    base: Change = NOTHING

    def copy(self) -> OnDisk:
        return replace(self, log=list(self.log))

    def knows(self, change: Change) -> bool:
        return 0 < change.rev <= len(self.log) and self.log[change.rev - 1] == change.mark

    @property
    def at(self) -> Change:
        return Change(self.gen, len(self.log), self.log[-1])

    def begin(self, gen: int) -> None:
        self.base = NOTHING if self.yielded else self.at
        self.gen, self.led, self.yielded = gen, True, False

    def yield_to(self, other: OnDisk) -> None:
        """As `generations.yield_to` does."""
        held = self.kept if self.kept.gen == self.gen else Change(self.gen, 0, "")
        if other.base.rev > held.rev and self.knows(other.base):
            held = Change(self.gen, other.base.rev, other.base.mark)
        self.gen, self.led, self.kept, self.yielded = other.gen, False, held, True


@dataclass
class ModelHub:
    """A hub; down where `lead` is None. Its clock begins anywhere, and runs a little wrong."""

    name: str
    disk: OnDisk
    rate: float
    offset: int
    lead: Lead | None
    image: OnDisk
    next_ms: int = 0
    told: Change | None = None
    asleep: LeadWrite | None = None  # it sleeps between the decision and the write
    lost: bool = False
    follows_ms: int = 0  # when it reads what another hub has, at the earliest
    vacancy: Vacancy = field(init=False)

    def __post_init__(self) -> None:
        self.vacancy = Vacancy(self.name)

    def start(self) -> None:
        self.lead, self.vacancy = Lead(self.name), Vacancy(self.name)

    def clock(self, now: int) -> int:
        return self.offset + int(now * self.rate)

    @property
    def followed(self) -> Followed:
        disk = self.disk
        if disk.yielded:
            return Followed(disk.kept, seen=disk.gen)
        return Followed(disk.at, disk.knows if disk.led else None)


@dataclass
class LeadWorld:
    """`random`: which faults there are, and when. `vacant`: the hub of all accounts is lost before it is appointed."""

    random: random.Random
    vacant: bool = False
    now: int = 0
    acknowledged: set[str] = field(default_factory=set)
    generations: list[int] = field(default_factory=list)  # of what was acknowledged, in order
    takeovers: int = 0
    rolled_back: int = 0
    faults: bool = True
    changes: int = 0
    led_by_yielded: int = 0

    def __post_init__(self) -> None:
        choose = self.random
        first = OnDisk(1, [FIRST], led=False)
        self.hubs = [
            ModelHub(each, first.copy(), choose.uniform(0.98, 1.02), choose.randrange(10**6), Lead(each), first.copy())
            for each in NAMES
        ]
        self.record: LeadRecord | None = LeadRecord("fra", 1, Change(1, 1, FIRST))
        self.revision = 1
        self.notes: dict[str, NoteSeen] = {}
        self.noted = 0
        if self.vacant:
            self._lose_the_first()
        self.history = [(self.record, self.revision)]
        self.late: list[tuple[int, LeadWrite]] = []
        self.telling: list[tuple[int, str, Change]] = []
        self.no_majority_until = 0

    def _lose_the_first(self) -> None:
        """It is back after a while, or never; the others have followed some of what it has."""
        self.record, self.revision = None, 0
        first, *others = self.hubs
        first.lead, first.lost = None, self.random.random() < 0.5
        first.disk = OnDisk(1, [f"a{number}" for number in range(9)], led=True)
        for hub in others:
            hub.disk.log = first.disk.log[: self.random.randrange(1, 9)]
        for hub in self.hubs:
            hub.image = hub.disk.copy()

    # The world ---------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Faults, and then none. Returns whether, in the end, a hub leads and a new change is acknowledged."""
        while self.now < FAULTS_MS:
            self.step()
        self.faults = False
        self.no_majority_until = 0
        for hub in self.hubs:
            if hub.lead is None and not hub.lost:
                hub.start()
        before = len(self.acknowledged)
        while self.now < FAULTS_MS + HEALED_MS:
            self.step()
        leading = [hub for hub in self.hubs if hub.lead is not None and hub.lead.leads(hub.clock(self.now))]
        return len(leading) == 1 and len(self.acknowledged) > before

    @property
    def begun_alone(self) -> bool:
        """Whether a hub that was not followed before has made the record, and no second one is known to have its
        accounts since."""
        return self.vacant and self.record is not None and self.record.kept.gen == 1

    def step(self) -> None:
        self.now += 100
        for each in [each for each in self.late if each[0] <= self.now]:
            self.late.remove(each)
            self._apply(each[1])
        for tell in [each for each in self.telling if each[0] <= self.now]:
            self._tell(*tell)
        if self.faults:
            self._break_something()
        for hub in self.hubs:
            if hub.next_ms <= self.now:
                hub.next_ms = self.now + self.random.randrange(200, 800)
                self._wake(hub)
            self.check()

    def check(self) -> None:
        """At most one hub takes itself for the leader; one that does, or did when it last asked, has all changes that
        were ever acknowledged; generations of what is acknowledged never go back."""
        leading = [hub for hub in self.hubs if hub.lead is not None and hub.lead.leads(hub.clock(self.now))]
        assert len(leading) <= 1, [hub.name for hub in leading]
        for hub in leading:
            assert self.acknowledged <= set(hub.disk.log), (hub.name, self.acknowledged - set(hub.disk.log))
        assert self.generations == sorted(self.generations)

    def _break_something(self) -> None:
        chance = self.random.random()
        hub = self.random.choice(self.hubs)
        if chance < 0.004:
            hub.lead = hub.asleep = hub.told = None  # killed
        elif chance < 0.012 and hub.lead is None and not hub.lost:
            hub.start()
            hub.next_ms = self.now
        elif chance < 0.016:
            hub.next_ms = self.now + self.random.randrange(LONGEST_PAUSE_MS)
        elif chance < 0.018:
            self.no_majority_until = self.now + self.random.randrange(10_000)
        elif chance < 0.022:
            hub.image = hub.disk.copy()
        elif chance < 0.0225 and not self.rolled_back:
            self.rolled_back += 1
            hub.disk, hub.lead, hub.asleep, hub.told = hub.image.copy(), None, None, None
        elif chance < 0.0262:
            hub.follows_ms = self.now + self.random.randrange(LONGEST_PAUSE_MS)
        elif chance < 0.0269 and not any(each.lost for each in self.hubs):
            hub.lost, hub.lead, hub.asleep = True, None, None

    # The record --------------------------------------------------------------------------------------------

    def _read(self, hub: ModelHub, lead: Lead) -> None:
        if self.now < self.no_majority_until:
            lead.unread()
            return
        stale = self.faults and self.random.random() < 0.05
        record, revision = self.random.choice(self.history[-8:]) if stale else (self.record, self.revision)
        lead.read(record, revision, hub.clock(self.now))

    def _fill(self, hub: ModelHub, lead: Lead) -> None:
        """As `Leading` does where there is no record."""
        if lead.record is not None or self.now < self.no_majority_until:
            hub.vacancy.end()
            return
        now, at = hub.clock(self.now), hub.followed.at
        note = hub.vacancy.notes(at, now)
        if note is not None and not (self.faults and self.random.random() < 0.1):
            self.noted += 1
            self.notes[hub.name] = NoteSeen(hub.name, note.at, self.noted)
        is_seen = hub.vacancy.is_long(now) and hub.vacancy.appoints(at, self.notes.values(), now)
        if is_seen and self.record is None and self.revision == 0:
            self.record, self.revision = LeadRecord(hub.name, at.gen, at), 1
            self.history.append((self.record, self.revision))

    def _apply(self, write: LeadWrite) -> int | None:
        if write.revision != self.revision:
            return None
        self.record, self.revision = write.record, self.revision + 1
        self.history.append((self.record, self.revision))
        return self.revision

    def _write(self, hub: ModelHub, lead: Lead, write: LeadWrite) -> None:
        chance = self.random.random() if self.faults else 1.0
        if chance < 0.06:  # it is applied at some time, and nobody learns of it
            self.late.append((self.now + self.random.randrange(20_000), write))
        if chance < 0.12 or self.now < self.no_majority_until:
            lead.unread()
            return
        revision = self._apply(write)
        if revision is None or (chance < 0.17):  # refused, or the answer is lost
            lead.unread()
            return
        took = lead.gen is None
        lead.written(write, revision)
        if took:
            self.takeovers += 1
            self.led_by_yielded += hub.disk.yielded
            if chance < 0.3:  # killed before the generation is in the store
                hub.lead = None
                return
            hub.disk.begin(write.record.gen)
            hub.told = None
        kept = lead.acknowledged
        if kept is not None and kept.rev:
            assert hub.disk.log[kept.rev - 1] == kept.mark
            self.acknowledged.update(hub.disk.log[: kept.rev])
            self.generations.append(kept.gen)
            if chance > 0.2:  # else it is killed, or its store is full, before that is noted
                hub.disk.kept = kept

    # Hubs --------------------------------------------------------------------------------------------------

    def _wake(self, hub: ModelHub) -> None:
        # A command writes the store of a hub that took itself for the leader, whether or not its server runs.
        if hub.disk.led and not hub.lost and self.random.random() < 0.4:
            self.changes += 1
            hub.disk.log.append(f"c{self.changes}")
        lead = hub.lead
        if lead is None:
            return
        if hub.asleep is not None:
            write, hub.asleep = hub.asleep, None
            self._write(hub, lead, write)
            return
        self._read(hub, lead)
        self._follow(hub)
        self._fill(hub, lead)
        write_now = lead.wanted(hub.followed, hub.told, hub.clock(self.now))
        if write_now is None:
            return
        if self.faults and self.random.random() < 0.03:
            hub.asleep = write_now
            hub.next_ms = self.now + self.random.randrange(LONGEST_PAUSE_MS)
            return
        self._write(hub, lead, write_now)

    def _follow(self, hub: ModelHub) -> None:
        """A hub reads all that another one has that takes itself for the leader, and tells it so, now or later."""
        for other in self.hubs:
            if other is hub or other.lead is None or other.lead.gen is None or other.lead.gen != other.disk.gen:
                continue
            if other.disk.gen < hub.disk.gen or (other.disk.gen == hub.disk.gen and hub.disk.led):
                continue
            if self.faults and (hub.follows_ms > self.now or self.random.random() < 0.3):
                continue
            if hub.lead is not None and hub.lead.gen is not None:
                continue
            if hub.disk.led:
                hub.disk.yield_to(other.disk)
                if self.faults and self.random.random() < 0.5:
                    hub.follows_ms = self.now + self.random.randrange(LONGEST_PAUSE_MS)
                    continue
            hub.disk = OnDisk(other.disk.gen, list(other.disk.log), led=False)
            delay = self.random.randrange(5_000) if self.faults and self.random.random() < 0.2 else 0
            self.telling.append((self.now + delay, other.name, hub.followed.at))

    def _tell(self, at: int, name: str, change: Change) -> None:
        self.telling.remove((at, name, change))
        hub = next(each for each in self.hubs if each.name == name)
        is_of_this = hub.lead is not None and hub.lead.gen == change.gen
        if is_of_this and (hub.told is None or (hub.told.gen, hub.told.rev) < (change.gen, change.rev)):
            hub.told = change
