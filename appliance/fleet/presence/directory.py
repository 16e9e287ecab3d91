"""Knows the exits of the fleet by their beats: which are there, and which of them take sessions. Pure.

Whether an exit is there goes by when its beats arrive, on the receiver's CLOCK_BOOTTIME: the clocks of two hosts are
compared only to tell that they differ too much.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from appliance.fleet.presence.beats import SPOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from appliance.domain.clock import Moment
    from appliance.fleet.membership.members import FleetMember
    from appliance.fleet.presence.beats import Beat

DEAD_MS = 3500  # without a beat: three were missed
SKEWED_MS, SKEW_WARNED_MS = 300_000, 2000
SKEWS = 8  # beats; the one that took the least time on its way tells best
CLASH_MS = 10_000  # two processes of one exit were both heard within it
INSTS = 8  # processes of an exit that are remembered
TIMEOUTS, SHUNNED_MS = 3, 10_000
SENT = 128  # own beats whose return is awaited
UNHEARD = "what it sends does not come back from the hub"
TAKEN_OUT = "was taken out of the fleet"  # follows a host's name
NOT_READY, DRAINED, FULL = "not ready", "drained", "no address is free"


class Life(NamedTuple):
    """Holds what is known of one process of an exit. By its own wall clock it lives from `since` to `until`, at least;
    `n`: of its newest beat; `heard_ms`: when that came, CLOCK_BOOTTIME."""

    since: int
    until: int
    n: int
    heard_ms: int


@dataclass(slots=True)
class Heard:
    """Holds what was heard of one exit."""

    lives: dict[str, Life] = field(default_factory=dict)  # by inst, in the order in which they were heard last
    beat: Beat | None = None  # the newest one
    at_ms: int = 0  # when it came, CLOCK_BOOTTIME
    skews: deque[int] = field(default_factory=lambda: deque(maxlen=SKEWS))  # in ms
    unanswered: int = 0  # requests in a row
    shunned_until_ms: int = 0


class Presence(NamedTuple):
    """Tells how an exit stands. `fault`: why it takes no sessions; None: it does. `asked`: other requests reach it.

    `silent_ms`: since its last beat; None: there was none. `skew_ms`: how far its wall clock is ahead of this host's.
    """

    member: FleetMember
    beat: Beat | None
    alive: bool
    silent_ms: int | None
    skew_ms: int | None
    fault: str | None
    asked: bool


class Directory:
    """Takes in what is heard of the exits. `member`: this host; `members`: the fleet's, as known now, also this one and
    those that have left; they may be none before the accounts of the fleet are here."""

    def __init__(self, member: FleetMember, members: Callable[[], Collection[FleetMember]]) -> None:
        self.member = member
        self._members = members
        self._heard: dict[str, Heard] = {}
        self._sent: deque[tuple[int, int]] = deque(maxlen=SENT)  # (n, t) of own beats
        self._own: Beat | None = None  # the last one that was sent
        self._unheard_ms: int | None = None  # when the first own beat was sent since one came back, CLOCK_BOOTTIME
        self._doubled_at_ms: int | None = None  # when a beat came that this process is said to have sent, and has not
        self.dropped: Counter[str] = Counter()  # beats that were not taken, by why

    # What happens --------------------------------------------------------------------------------------

    def sent(self, beat: Beat, now: Moment) -> None:
        """Notes a beat of this exit that is about to be sent. It comes back, as all beats do."""
        self._own = beat
        self._unheard_ms = now.boot_ms if self._unheard_ms is None else self._unheard_ms
        self._sent.append((beat.n, beat.t))

    def disconnected(self) -> None:
        """Notes that there is no connection to a hub: no beat comes back."""
        self._unheard_ms = None

    def hear(self, beat: Beat, now: Moment) -> FleetMember | None:
        """Takes in a beat that has arrived now. Returns the other exit whose word it is; None: it was not taken."""
        if beat.node == self.member.id:
            self._hear_own(beat, now)
            return None
        member = next((each for each in self._others() if each.id == beat.node), None)
        if member is None:
            self.dropped["stranger"] += 1
        elif _take(self._of(beat.node), beat, now):
            return member
        else:
            self.dropped["late"] += 1
        return None

    def _hear_own(self, beat: Beat, now: Moment) -> None:
        own = self._own
        if own is None:
            return
        if beat.inst != own.inst:
            _take(self._of(beat.node), beat, now)
        elif (beat.n, beat.t) in self._sent:
            self._unheard_ms = None
        elif beat.n >= self._sent[0][0]:
            self._doubled_at_ms = now.boot_ms  # a copy of a virtual machine that ran has its memory, too

    def answered(self, node: str) -> None:
        """Notes that an exit has answered a request of this one."""
        self._of(node).unanswered = 0

    def unanswered(self, node: str, now: Moment) -> None:
        """Notes that an exit has not answered a request of this one in time."""
        heard = self._of(node)
        heard.unanswered += 1
        if heard.unanswered >= TIMEOUTS:
            heard.shunned_until_ms = now.boot_ms + SHUNNED_MS

    def _of(self, node: str) -> Heard:
        return self._heard.setdefault(node, Heard())

    # How it stands ---------------------------------------------------------------------------------------

    def own_fault(self, now: Moment) -> str | None:
        """Returns why this exit refuses work for the fleet, and asks nothing of it; None: it does neither."""
        doubled = self._doubled_at_ms is not None and now.boot_ms - self._doubled_at_ms < CLASH_MS
        lives = self._of(self.member.id).lives.values()
        own = self._own
        # What an earlier process of this exit has sent may still be on its way.
        if doubled or (own is not None and any(_heard_lately(life, now) and life.until > own.since for life in lives)):
            return two_machines(self.member.id)
        return None

    def refusal(self, now: Moment) -> str | None:
        """Returns why the others are to ask nothing of this exit; None: they may."""
        unheard_ms = 0 if self._unheard_ms is None else now.boot_ms - self._unheard_ms
        return self.own_fault(now) or (UNHEARD if unheard_ms >= DEAD_MS else None)

    def apart(self, now: Moment, *, connected: bool) -> str | None:
        """Returns why this host works as a single one; None: it does not."""
        if any(member.left_at is not None for member in self._members() if member.id == self.member.id):
            return f"{self.member.name} {TAKEN_OUT}"
        return self.refusal(now) if connected else "cut off"

    def presences(self, own: Beat, now: Moment, *, connected: bool) -> list[Presence]:
        """Returns how the exits of the fleet stand, by name. `own`: as this one is now; `connected`: to a hub.

        What is not connected, is not the only one of its id or has left knows of no other that takes sessions.
        """
        apart = self.apart(now, connected=connected)
        this = Presence(self.member, own, True, 0, 0, _own_fault(own, apart), asked=True)
        found = [this, *(self._presence(member, now, apart) for member in self._others())]
        return sorted(found, key=lambda each: (each.member.name, each.member.id))

    def heard_for_ms(self, node: str, now: Moment) -> int:
        """Returns for how much longer another exit is alive, if no beat of it comes; at most 0: it is dead."""
        heard = self._of(node)
        return 0 if heard.beat is None else heard.at_ms + DEAD_MS - now.boot_ms

    def _presence(self, member: FleetMember, now: Moment, apart: str | None) -> Presence:
        heard = self._of(member.id)
        if heard.beat is None:
            return Presence(member, None, False, None, None, apart or "not heard yet", asked=False)
        silent_ms = now.boot_ms - heard.at_ms
        skew_ms = max(heard.skews, default=0)
        alive = self.heard_for_ms(member.id, now) > 0
        silence = None if alive else f"silent for {silent_ms // 1000} s"
        barrier = apart or silence or next(_barriers(member, heard, heard.beat, now), None)
        fault = barrier or next(_faults(member, heard.beat, skew_ms), None)
        return Presence(member, heard.beat, alive, silent_ms, skew_ms, fault, asked=barrier is None)

    def _others(self) -> list[FleetMember]:
        return [each for each in self._members() if each.left_at is None and each.id != self.member.id]


def two_machines(node: str) -> str:
    return f"two machines are {node}"


def _take(heard: Heard, beat: Beat, now: Moment) -> bool:
    """Takes in a beat; returns False if one was heard already that was sent later."""
    before = heard.lives.get(beat.inst)
    if before is not None and beat.n <= before.n:
        return False
    heard.lives.pop(beat.inst, None)
    heard.lives[beat.inst] = Life(beat.since, beat.t, beat.n, now.boot_ms)
    if len(heard.lives) > INSTS:
        del heard.lives[next(iter(heard.lives))]
    last = heard.beat
    # A process that has ended leaves beats on their way. The clock may have been set back while its host was down.
    earlier = last is not None and last.inst != beat.inst and beat.t <= last.since
    if earlier and now.boot_ms - heard.at_ms < DEAD_MS:
        return False
    heard.beat, heard.at_ms = beat, now.boot_ms
    heard.skews.append(beat.t - now.wall_ms)
    return True


def _heard_lately(life: Life, now: Moment) -> bool:
    return now.boot_ms - life.heard_ms < CLASH_MS


def _clash(heard: Heard, now: Moment) -> bool:
    """Tells whether processes of one exit have run at the same time: one that is started anew ends before."""
    lives = sorted(life for life in heard.lives.values() if _heard_lately(life, now))
    return any(earlier.until > later.since for earlier, later in pairwise(lives))


def _own_fault(own: Beat, apart: str | None) -> str | None:
    """Returns why this exit takes no sessions. By itself it is as a single one is: full, it says so to who asks."""
    if not own.ready:
        return NOT_READY
    if own.drained:
        return DRAINED
    return FULL if not own.room and apart is None else None


def _barriers(member: FleetMember, heard: Heard, beat: Beat, now: Moment) -> Iterator[str]:
    """Yields why an exit that is there is asked for nothing."""
    if _clash(heard, now):
        yield two_machines(member.id)
    if max(beat.p[0], SPOKEN[0]) > min(beat.p[1], SPOKEN[1]):
        yield f"runs {beat.version}, which this exit cannot talk to: upgrade the older of the two"
    if heard.unanswered >= TIMEOUTS and now.boot_ms < heard.shunned_until_ms:
        yield f"did not answer {heard.unanswered} requests in a row"


def _faults(member: FleetMember, beat: Beat, skew_ms: int) -> Iterator[str]:
    """Yields why an exit that can be asked takes no sessions, the gravest first."""
    if abs(skew_ms) >= SKEWED_MS:
        yield f"its clock differs from this host's by {abs(skew_ms) // 1000} s"
    if beat.region != member.region:
        yield f"says that it is in {beat.region}, and joined as one in {member.region}"
    if not beat.ready:
        yield NOT_READY
    if beat.drained:
        yield DRAINED
    if not beat.room:
        yield FULL
