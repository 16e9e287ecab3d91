"""A fleet that shares one account's limits: exits, the ledger, and a network that loses, doubles and reorders.

What the exits really use is counted apart from all that they and the ledger know of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, dataclass, field
from random import Random
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain import windows
from appliance.domain.windows import Window, Windows
from appliance.fleet.quota import escrow, holder, outdated
from appliance.fleet.quota.escrow import LAPSES_MS, LedgerFacts, QuotaRecord
from appliance.fleet.quota.holder import Borrowed, Own, Sharing

if TYPE_CHECKING:
    from appliance.domain.grant import Grant
    from appliance.fleet.quota.messages import LeaseAsk, LeaseTold, WindowTold

ACCOUNT = "acc_model"
LOOK_MS = 250
OPENS_IN_MS = 1_500
EVENTS_AT_ONCE = 40  # messages that may be under way
BEGAN_MS = 1_790_000_000_000


class Broken(AssertionError):
    """Is raised when more was used, or lent, than the bound says."""


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """The account's tier."""

    bytes_limit: int = 500_000
    bytes_window: int = 3_600
    seconds_limit: int = 120
    seconds_window: int = 7_200
    max_live_sessions: int = 3
    max_session: int = 86_400
    max_devices: int | None = None
    idle_timeout: int = 300


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad the world is: chances of an event, in a thousand."""

    lost: int = 0
    doubled: int = 0
    late: int = 0
    cuts: int = 0
    crashes: int = 0
    restores: int = 0
    losses: int = 0
    pauses: int = 0
    window_ends: int = 0
    forgets: int = 0
    limit_changes: int = 0
    cleanings: int = 0


@dataclass(slots=True)
class Exit:
    """One exit: what it believes, what is in its store, and what was really used there."""

    name: str
    borrowed: Borrowed = field(default_factory=lambda: Borrowed(q=BEGAN_MS))
    spent: Windows = field(default_factory=Windows)
    stored: Borrowed = field(default_factory=lambda: Borrowed(q=BEGAN_MS))
    backup: tuple[Borrowed, Windows] | None = None
    real: list[int] = field(default_factory=lambda: [0, 0])  # bytes, ms of session time; in the window that is open
    live: int = 0
    opening: bool = False
    opens_until: int = 0
    asked: LeaseAsk | None = None
    cut: bool = False
    gone: bool = False  # forgotten by the fleet
    memory: int = 0  # the ledger's, as it knows
    to_tell: bool = True  # all that it holds to that memory
    beyond: list[int] = field(default_factory=lambda: [0, 0])  # what the bound grants it beyond the limit
    untold: list[int] = field(default_factory=lambda: [0, 0])  # of what it was lent, used when it was lent again
    beyond_live: int = 0
    heard_used: list[int] = field(default_factory=lambda: [0, 0])  # by the ledger
    restored: bool = False  # what it used and had not told before is known to nobody


@dataclass(slots=True)
class EscrowModel:
    """Holds the fleet. `step` lets one thing happen; what must hold is looked at after each."""

    random: Random
    weather: Weather
    strict: bool
    many: int
    limits: ModelLimits = field(default_factory=ModelLimits)
    now_ms: int = BEGAN_MS
    record: QuotaRecord = field(default_factory=QuotaRecord)
    told_all: set[str] = field(default_factory=set)
    memory: int = 1
    exits: list[Exit] = field(default_factory=list)
    to_ledger: list[tuple[Exit, LeaseAsk]] = field(default_factory=list)
    to_exits: list[tuple[Exit, LeaseTold, int]] = field(default_factory=list)
    largest: list[int] = field(default_factory=lambda: [0, 0])  # limits that were in force in the window
    largest_live: int = 0
    look: list[int] = field(default_factory=list)
    unheard: dict[str, list[int]] = field(default_factory=dict)  # what exits had taken when the memory was lost
    shares: dict[tuple[int, str], int] = field(default_factory=dict)  # of them, lent before all have told
    early: list[int] = field(default_factory=lambda: [0, 0])
    early_live: int = 0
    done: Counter[str] = field(default_factory=Counter)
    worst: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def __post_init__(self) -> None:
        self.exits = [Exit(f"nod_{number}") for number in range(self.many)]
        self.look = [self.limits.bytes_limit // 150, LOOK_MS * self.limits.max_live_sessions]
        self._limits_changed()

    # What the exits do.

    @property
    def sharing(self) -> Sharing:
        return Sharing(max(1, len(self.members)), self.strict)

    @property
    def members(self) -> list[str]:
        return [each.name for each in self.exits if not each.gone]

    @property
    def lengths(self) -> tuple[int, int]:
        return self.limits.bytes_window * 1000, self.limits.seconds_window * 1000

    @property
    def figures(self) -> tuple[int, int]:
        return self.limits.bytes_limit, self.limits.seconds_limit * 1000

    def own(self, exit_: Exit) -> Own:
        traffic, time = self.spent_now(exit_)
        wanted = exit_.live + exit_.opening
        return Own(ACCOUNT, Windows(traffic, time), exit_.live, wanted)

    def spent_now(self, exit_: Exit) -> tuple[Window, Window]:
        """The exit's windows as of now. One that is over has nothing used in it."""
        traffic = windows.at(exit_.spent.traffic, self.lengths[0], self.now_ms)
        time = windows.at(exit_.spent.time, self.lengths[1], self.now_ms)
        for number, (now, had) in enumerate(((traffic, exit_.spent.traffic), (time, exit_.spent.time))):
            if now.opened_at is None and had.opened_at is not None:
                self.shares.pop((number, exit_.name), None)
                exit_.real[number] = exit_.beyond[number] = exit_.untold[number] = exit_.heard_used[number] = 0
        exit_.spent = Windows(traffic, time)
        return traffic, time

    def cut_off(self, exit_: Exit) -> bool:
        return holder.is_cut_off(exit_.borrowed, self.sharing, self.now_ms)

    def grant(self, exit_: Exit, *, cut_off: bool | None = None) -> Grant:
        alone = self.cut_off(exit_) if cut_off is None else cut_off
        return holder.allowance(exit_.borrowed, self.own(exit_), self.limits, self.sharing, cut_off=alone)

    def use(self, exit_: Exit, amounts: tuple[int, int]) -> None:
        """Uses something, no more than in one look, and looks whether that was too much."""
        if exit_.live:
            self._bound_of(exit_)
            spent = list(self.spent_now(exit_))
            for number, amount in enumerate(amounts):
                spent[number] = windows.spend(spent[number], self.lengths[number], amount, self.now_ms, self.now_ms + 1)
                exit_.real[number] += amount
            exit_.spent = Windows(*spent)
        grant = self.grant(exit_)
        if exit_.live and ((grant.bytes_gone and self.figures[0]) or (grant.time_gone and self.figures[1])):
            exit_.live = 0
            self.done["ended"] += 1
            self.give_back(exit_)
            return
        self.ask(exit_)

    def _bound_of(self, exit_: Exit) -> None:
        """Notes what the exit may use beyond what it was lent: before it does."""
        alone, lent = self.cut_off(exit_), exit_.borrowed
        for number, (lease, window) in enumerate(zip((lent.traffic, lent.time), self.spent_now(exit_), strict=True)):
            matches = lease.opened and lease.opened == window.opened_at
            free = lease.free if matches and lent.known else self.figures[number]
            share = free // self.sharing.nodes
            if self.strict and lent.waiting_ms is None:
                share = min(share, self.look[number])
            elif self.strict:
                share = min(share, self.look[number] * (holder.STRICT_MS // LOOK_MS + 1)) if not alone else 0
            if matches and self._lent_again(exit_, number):
                share += max(0, lease.granted - exit_.heard_used[number])
            exit_.beyond[number] = max(exit_.beyond[number], share)

    def _lent_again(self, exit_: Exit, number: int) -> bool:
        """Tells whether the ledger may have lent to others what this exit has."""
        record = (self.record.traffic, self.record.time)[number]
        return self._freed(exit_) or exit_.name not in self.record.heard or exit_.name not in record.parts

    def _freed(self, exit_: Exit) -> bool:
        """Tells whether what this exit has is free by the ledger's rules, as it was forgotten or not heard of."""
        heard = self.record.heard.get(exit_.name)
        lapsed = heard is not None and not self.strict and self.now_ms - heard.at >= LAPSES_MS
        return exit_.gone or lapsed

    def _note_untold(self, asking: Exit) -> None:
        """Notes what others have used of what may be lent to the asking exit now: they may use nothing later."""
        for each in self.exits:
            if each is asking or not self._freed(each):
                continue
            lent = each.borrowed.traffic, each.borrowed.time
            for number, (lease, window) in enumerate(zip(lent, self.spent_now(each), strict=True)):
                if lease.opened and lease.opened == window.opened_at:
                    used = min(lease.granted, each.real[number])
                    each.untold[number] = max(each.untold[number], used - each.heard_used[number])

    def ask(self, exit_: Exit, *, urgent: bool = False) -> None:
        had = exit_.borrowed
        exit_.borrowed, asked = holder.ask(had, self.own(exit_), self.limits, self.sharing, self.now_ms, urgent=urgent)
        if asked is not None:
            self._send(exit_, asked)

    def give_back(self, exit_: Exit) -> None:
        exit_.borrowed, asked = holder.give_back(exit_.borrowed, self.own(exit_), self.now_ms)
        self._send(exit_, asked)

    def _send(self, exit_: Exit, asked: LeaseAsk) -> None:
        exit_.stored = replace(exit_.borrowed, waiting_ms=None, asked_ms=None, told_ms=None)
        exit_.asked = asked
        if exit_.cut or exit_.gone or len(self.to_ledger) > EVENTS_AT_ONCE:
            return
        for _ in range(self._copies()):
            self.to_ledger.append((exit_, asked))

    def _copies(self) -> int:
        chance = self.random.randrange(1000)
        if chance < self.weather.lost:
            return 0
        return 2 if chance < self.weather.lost + self.weather.doubled else 1

    def open(self, exit_: Exit) -> None:
        if exit_.opening:
            return
        exit_.opening, exit_.opens_until = True, self.now_ms + OPENS_IN_MS
        self.ask(exit_, urgent=True)

    def _admit(self, exit_: Exit, *, cut_off: bool) -> None:
        """Opens the session that is waited for, or not."""
        grant = self.grant(exit_, cut_off=cut_off)
        exit_.opening = False
        gone = (grant.bytes_gone and self.figures[0]) or (grant.time_gone and self.figures[1])
        if gone or exit_.live + 1 > grant.live:
            self.done["refused"] += 1
            return
        if exit_.live + 1 > exit_.borrowed.slots.held:
            free = exit_.borrowed.slots.free if exit_.borrowed.known else self.limits.max_live_sessions
            own = exit_.borrowed.slots.held if exit_.gone else 0  # which the ledger has allowed others since
            exit_.beyond_live = max(exit_.beyond_live, own - (-free // self.sharing.nodes))
        exit_.live += 1
        self.done["opened"] += 1

    def close(self, exit_: Exit) -> None:
        if exit_.live:
            exit_.live -= 1
            if not exit_.live and not exit_.opening:
                self.give_back(exit_)

    def hear(self, exit_: Exit, answer: LeaseTold, memory: int) -> None:
        if exit_.cut or exit_.gone:
            return
        if holder.counts(exit_.borrowed, answer) and exit_.asked is not None:
            self._adopt(exit_, answer, exit_.asked)
            counted = True
        else:
            counted = False
        exit_.borrowed = holder.told(exit_.borrowed, answer, self.own(exit_), self.now_ms)
        if not counted:
            return
        if self.random.random() < 0.5:
            exit_.stored = replace(exit_.borrowed, waiting_ms=None, asked_ms=None, told_ms=None)
        if exit_.to_tell and memory == exit_.memory:
            exit_.to_tell = False
            if memory == self.memory:
                self.told_all.add(exit_.name)
        if exit_.opening:
            self._admit(exit_, cut_off=False)

    def _adopt(self, exit_: Exit, answer: LeaseTold, asked: LeaseAsk) -> None:
        traffic, time = self.spent_now(exit_)
        parts: list[tuple[Window, WindowTold, int]] = [
            (traffic, answer.traffic, asked.traffic.used),
            (time, answer.time, asked.time.used),
        ]
        exit_.spent = Windows(
            *(
                holder.adopted(window, told, used, length)
                for (window, told, used), length in zip(parts, self.lengths, strict=True)
            )
        )

    # What the ledger does.

    def answer(self, exit_: Exit, asked: LeaseAsk) -> None:
        if exit_.gone:
            return
        given, before = self._given(), self.record
        self._note_untold(exit_)
        self.record, told = escrow.decide(before, exit_.name, asked, given)
        self._note_early(before, exit_.name)
        self._check_lent(before, exit_.name, asked)
        if self.record.heard.get(exit_.name) != before.heard.get(exit_.name):
            self.unheard.pop(exit_.name, None)
            exit_.heard_used = [
                used if window.opened_at == window_asked.opened else old
                for used, window, window_asked, old in zip(
                    (asked.traffic.used, asked.time.used),
                    self.spent_now(exit_),
                    (asked.traffic, asked.time),
                    exit_.heard_used,
                    strict=True,
                )
            ]
        for _ in range(self._copies()):
            self.to_exits.append((exit_, told, self.memory))

    def _given(self) -> LedgerFacts:
        return LedgerFacts(self.limits, self.members, self.told_all, not self.strict, self.now_ms)

    def _clean(self) -> None:
        """Deletes the ledger's record, if that is needed no more; mostly after a rest, and after all were to close."""
        if self.random.random() < 0.7:
            for each in self.exits:
                while each.live:
                    self.close(each)
                self._deliver()
        self._pass(self.random.choice((0, outdated.QUIET_MS, max(self.lengths) + outdated.QUIET_MS)))
        if self.record.heard and outdated.is_outdated(self.record, self._given()):
            self._check_needless()
            self.record = QuotaRecord()
            self.done["cleaned"] += 1

    def _check_needless(self) -> None:
        """Raises Broken if any exit would be told something else by its next request without the record."""
        given, now = self._given(), self.now_ms
        for exit_ in (each for each in self.exits if not each.gone):
            for asked in (holder.give_back(exit_.borrowed, self.own(exit_), now)[1], self._next(exit_)):
                with_it, told = escrow.decide(self.record, exit_.name, asked, given)
                without, told_anew = escrow.decide(QuotaRecord(), exit_.name, asked, given)
                if told != told_anew or (with_it.traffic, with_it.time) != (without.traffic, without.time):
                    raise Broken(f"{exit_.name} is told {told_anew} in place of {told}, after {dict(self.done)}")

    def _next(self, exit_: Exit) -> LeaseAsk:
        """Returns what the exit would ask to open one more session."""
        own = self.own(exit_)
        own = replace(own, live_wanted=own.live + 1)
        asked = holder.ask(exit_.borrowed, own, self.limits, self.sharing, self.now_ms, urgent=True)[1]
        assert asked is not None
        return asked

    def _note_early(self, before: QuotaRecord, name: str) -> None:
        """Counts what was lent while others had not told what they had taken."""
        if not any(each != name for each in self.unheard):
            return
        before_live, live = before.live.get(name), self.record.live.get(name)
        if live is not None:
            self.early_live += max(0, live.early - (before_live.early if before_live else 0))
        for number, (now, had) in enumerate(((self.record.traffic, before.traffic), (self.record.time, before.time))):
            mine, old = now.parts.get(name), had.parts.get(name)
            if had.opened and now.opened >= had.opened + self.lengths[number]:
                self.early[number] = 0
            if mine is not None:
                self.early[number] += max(0, mine.early - (old.early if old and now.opened == had.opened else 0))

    def lose_memory(self) -> None:
        """Loses all that the ledger knows, as when a hub's disk dies."""
        for exit_ in self.exits:
            if exit_.gone:
                continue
            taken = [
                record.parts[exit_.name].taken if exit_.name in record.parts else 0
                for record in (self.record.traffic, self.record.time)
            ]
            had = self.unheard.get(exit_.name, [0, 0])
            self.unheard[exit_.name] = [max(a, b) for a, b in zip(taken, had, strict=True)]
        self.record, self.memory = QuotaRecord(), self.memory + 1
        self.shares.clear()
        self.told_all.clear()
        self.done["memory lost"] += 1

    # What happens.

    def step(self) -> None:
        exit_ = self.random.choice(self.exits)
        chance, weather = self.random.randrange(1000), self.weather
        rare = (
            (weather.cuts, self._cut),
            (weather.crashes, self._crash),
            (weather.restores, self._restore),
            (weather.losses, lambda _exit: self.lose_memory()),
            (weather.pauses, lambda _exit: self._pass(LAPSES_MS + self.random.randrange(60_000))),
            (weather.window_ends, lambda _exit: self._pass(self.random.randrange(max(self.lengths)))),
            (weather.forgets, self._forget),
            (weather.limit_changes, lambda _exit: self._change_limits()),
            (weather.cleanings, lambda _exit: self._clean()),
        )
        for weight, happens in rare:
            if chance < weight:
                happens(exit_)
                break
            chance -= weight
        else:
            self._usual(exit_)
        self._deliver()
        self.check()

    def _usual(self, exit_: Exit) -> None:
        self._pass(self.random.choice((LOOK_MS, LOOK_MS, 1_000)))
        chance = self.random.randrange(100)
        if chance < 12:
            self.open(exit_)
        elif chance < 16:
            self.close(exit_)
        elif chance < 20 and exit_.cut:
            self._cut(exit_)
        elif chance < 20 and exit_.backup is None:
            exit_.backup = (exit_.stored, exit_.spent)
        self._follow()
        for each in self.exits:
            self.use(each, (self.random.choice((0, self.look[0])), min(self.look[1], LOOK_MS * each.live)))

    def _follow(self) -> None:
        """Lets the exits notice what has come and what has not."""
        for each in self.exits:
            if each.memory != self.memory and not (each.cut or each.gone):
                each.memory, each.to_tell = self.memory, True
                self.ask(each, urgent=True)
            if each.opening and self.now_ms >= each.opens_until:
                self._admit(each, cut_off=True)

    def pass_look(self) -> None:
        """Lets a look's time pass in which messages arrive."""
        self._pass(LOOK_MS)
        self._follow()
        self._deliver()
        self.check()

    def _pass(self, ms: int) -> None:
        self.now_ms += ms
        for each in self.exits:
            self.spent_now(each)

    def _deliver(self) -> None:
        for _ in range(self.many * 2):
            if self.to_ledger and not self._late():
                self.answer(*self.to_ledger.pop(self._which(len(self.to_ledger))))
            if self.to_exits and not self._late():
                self.hear(*self.to_exits.pop(self._which(len(self.to_exits))))

    def _late(self) -> bool:
        return self.random.randrange(1000) < self.weather.late

    def _which(self, many: int) -> int:
        return self.random.randrange(many) if self.weather.late else 0

    def _cut(self, exit_: Exit) -> None:
        exit_.cut = not exit_.cut
        self.done["cut" if exit_.cut else "healed"] += 1

    def _crash(self, exit_: Exit) -> None:
        """Kills the server; counters in the kernel and rows in the store are as they were."""
        exit_.borrowed, exit_.opening, exit_.asked = exit_.stored, False, None
        self.done["crashed"] += 1

    def _restore(self, exit_: Exit) -> None:
        """Puts back what the store had; what was used since and not told is known to nobody."""
        if exit_.backup is None:
            return
        (borrowed, spent), exit_.backup = exit_.backup, None
        exit_.borrowed = exit_.stored = replace(holder.restored(borrowed), e=exit_.borrowed.e + 1)
        exit_.spent, exit_.live, exit_.opening, exit_.asked = spent, 0, False, None
        exit_.restored = True
        self.done["restored"] += 1

    def _forget(self, exit_: Exit) -> None:
        if len(self.members) > 1 and not exit_.gone:
            exit_.gone = True
            exit_.beyond_live += max(exit_.borrowed.slots.held, exit_.live)
            self.unheard.pop(exit_.name, None)
            self.done["forgotten"] += 1

    def _change_limits(self) -> None:
        self.limits = ModelLimits(
            bytes_limit=self.random.choice((250_000, 500_000, 1_000_000)),
            seconds_limit=self.random.choice((60, 120, 240)),
            max_live_sessions=self.random.choice((2, 3, 5)),
        )
        self._limits_changed()
        self.done["limits changed"] += 1

    def _limits_changed(self) -> None:
        self.largest = [max(a, b) for a, b in zip(self.largest, self.figures, strict=True)]
        self.largest_live = max(self.largest_live, self.limits.max_live_sessions)

    # What must hold.

    def _check_lent(self, before: QuotaRecord, name: str, asked: LeaseAsk) -> None:
        """Raises Broken if the ledger lends, or allows, what it has lent to others."""
        if self.record == before:
            return  # a request that came twice, or late
        self._check_forgotten()
        for number, (now, had, told) in enumerate(
            ((self.record.traffic, before.traffic, asked.traffic), (self.record.time, before.time, asked.time))
        ):
            old = had.parts.get(name) if had.opened == now.opened else None
            base = max(told.granted, told.used, 0 if old is None else old.taken)
            if name not in now.parts:
                continue
            known = max(told.granted, told.used) if old is None else old.taken
            self._count_early(number, name, now.parts[name].taken - known)
            if now.parts[name].taken <= base:
                continue
            self._check_share(number, name)
            lapsed = {
                each
                for each, heard in self.record.heard.items()
                if not self.strict and self.now_ms - heard.at >= LAPSES_MS
            }
            taken = sum(part.used if each in lapsed else part.taken for each, part in now.parts.items())
            if taken > self.figures[number]:
                raise Broken(f"{taken} {('bytes', 'ms')[number]} are lent, after {dict(self.done)}")
        allowed = sum(each.count for each in self.record.live.values())
        if self.record.live[name].count > asked.live and allowed > self.limits.max_live_sessions:
            raise Broken(f"{allowed} sessions are allowed, after {dict(self.done)}")

    def _check_forgotten(self) -> None:
        """Raises Broken if the ledger keeps for a forgotten exit what that did not use by its word."""
        for name in (each.name for each in self.exits if each.gone):
            parts = [each.parts[name] for each in (self.record.traffic, self.record.time) if name in each.parts]
            if name in self.record.live or any(part.taken > part.used for part in parts):
                raise Broken(f"{name} is forgotten and has {parts}, after {dict(self.done)}")

    def _count_early(self, number: int, name: str, more: int) -> None:
        """Counts what an exit has more, or less, while the ledger does not know what others have."""
        if any(each != name for each in self.unheard):
            self.shares[number, name] = max(0, self.shares.get((number, name), 0) + more)
        else:
            self.shares.pop((number, name), None)

    def _check_share(self, number: int, name: str) -> None:
        """Raises Broken if an exit is lent more than a share then."""
        early = self.shares.get((number, name), 0)
        if early > self.largest[number] // self.sharing.nodes:
            raise Broken(f"{name} is lent {early} before all have told, after {dict(self.done)}")

    def _check_borrowed(self, exit_: Exit) -> None:
        """Raises Broken if an exit takes for its own what the ledger does not: it may be lent to another."""
        if exit_.gone or exit_.to_tell or exit_.memory != self.memory:
            return
        for lease, record in ((exit_.borrowed.traffic, self.record.traffic), (exit_.borrowed.time, self.record.time)):
            part = record.parts.get(exit_.name)
            if part is not None and lease.opened == record.opened and lease.granted > part.granted:
                raise Broken(f"{exit_.name} has {lease.granted}, it was lent {part.granted}, after {dict(self.done)}")
        live = self.record.live.get(exit_.name)
        # What is beyond a limit, as some exit was cut off or there is a new limit, is taken back by the ledger first.
        beyond = sum(each.beyond_live for each in self.exits) + self.largest_live - self.limits.max_live_sessions
        if live is not None and exit_.borrowed.slots.held > max(live.count, exit_.live) + beyond:
            raise Broken(f"{exit_.name} may have {exit_.borrowed.slots.held} sessions, after {dict(self.done)}")

    def check(self) -> None:
        """Raises Broken if more is used than the bound says, or more sessions are live."""
        for each in self.exits:
            self._check_borrowed(each)
        spent = [self.spent_now(each) for each in self.exits]
        for each, (traffic, time) in zip(self.exits, spent, strict=True):
            if not each.restored and each.real != [traffic.used, time.used]:
                raise Broken(
                    f"{each.name} counts {traffic.used} and {time.used}, it used {each.real}, after {dict(self.done)}"
                )
        for number in (0, 1):
            used = sum(windows_of[number].used for windows_of in spent)
            bound = self.largest[number] + sum(each.beyond[number] + each.untold[number] for each in self.exits)
            bound += self.look[number] * self.many + self.early[number]
            if used > bound:
                raise Broken(f"{('bytes', 'ms')[number]}: {used} used, {bound} is the bound, after {dict(self.done)}")
            self.worst[number] = max(self.worst[number], used / self.largest[number])
        live = sum(each.live for each in self.exits)
        most = self.largest_live + sum(each.beyond_live for each in self.exits)
        most += self.early_live
        if live > most:
            raise Broken(f"{live} sessions are live, {most} may be, after {dict(self.done)}")


WORST = Weather(
    lost=200,
    doubled=200,
    late=500,
    cuts=12,
    crashes=6,
    restores=5,
    losses=3,
    pauses=3,
    window_ends=2,
    forgets=1,
    limit_changes=2,
    cleanings=20,
)


def weather(random: Random) -> Weather:
    """Some of what can happen, each thing more or less often."""
    return Weather(*(random.choice((0, 0, most // 3, most)) for most in astuple(WORST)))


def run(seed: int, steps: int = 600) -> EscrowModel:
    """Runs one schedule. Raises Broken."""
    random = Random(seed)  # noqa: S311 (a test's choices)
    model = EscrowModel(random, weather(random), random.random() < 0.4, random.randint(1, 5))
    try:
        for _ in range(steps):
            model.step()
    except Broken as error:
        error.add_note(f"seed {seed}")
        raise
    return model


CALM = Weather(lost=10, doubled=10)


def usable(seed: int) -> float:
    """Returns which part of the bytes was used when nobody could open a session for a minute.

    All are connected, some have sessions that move nothing, and clients open again when theirs was ended.
    """
    random = Random(seed)  # noqa: S311 (a test's choices)
    limits = ModelLimits(seconds_limit=10**6, max_live_sessions=100)
    model = EscrowModel(random, CALM, random.random() < 0.5, random.randint(2, 10), limits)
    rates = [random.choice((0, 0, model.look[0] // 10, model.look[0])) for _ in model.exits]
    rates[0] = model.look[0]
    moved = model.now_ms
    while model.now_ms - moved < 2 * holder.REFRESH_MS:
        before = sum(each.real[0] for each in model.exits)
        for each, rate in zip(model.exits, rates, strict=True):
            if not each.live and random.random() < 0.05:
                model.open(each)
            model.use(each, (random.randrange(rate + 1), 0))
        model.pass_look()
        if sum(each.real[0] for each in model.exits) > before:
            moved = model.now_ms
    return before / limits.bytes_limit
