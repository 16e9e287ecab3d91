"""Tells the other exits each second that this one is there, how it stands, and how much it can take."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec

from appliance import __version__
from appliance.fleet.link.reading import Unreadable, read
from appliance.fleet.link.wire import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.domain.clock import Clock, Moment
    from appliance.fleet.membership.members import FleetMember
    from appliance.sessions.node import Node

SUBJECT = f"{PREFIX}.hb."
OF_ALL = SUBJECT + "*"
EVERY_MS = 1000
EARLY_MS = 100  # by so much a beat may be sent before its time: it is looked several times a second
OVER_MS = 10_000  # throughput is the mean of so long
SPOKEN = (1, 1)  # the oldest and the newest protocol that this version speaks
MEGABIT = 125_000  # bytes

# What another exit may say at most: it may be in the wrong hands.
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Words = Annotated[str, msgspec.Meta(max_length=255)]


class Beat(msgspec.Struct, frozen=True):
    """Describes an exit at one moment. Unknown fields are those of newer versions, and are passed over.

    `inst`: of the process, random; `since`: when it started, by its wall clock; `n`: counts its beats; `t`: its wall
    clock. `ready`: it would take sessions, if it were not drained. `live`: its sessions; `room`: how many more it has
    addresses for. `mbps`: what moves now; `line`: the most that was seen. `gen`, `acc_rev`: of its accounts.
    """

    node: Words
    p: tuple[Number, Number]
    inst: Words
    since: Number
    n: Number
    t: Number
    name: Words
    region: Words
    public_ip: Words
    version: Words
    ready: bool
    drained: bool
    live: Number
    room: Number
    mbps: Number
    line: Number
    gen: Number = 0
    acc_rev: Number = 0

    @property
    def load(self) -> float:
        """Returns how much of what it could take it has: 0 to 1."""
        return max(self.live / max(self.live + self.room, 1), self.mbps / max(self.line, 1))


def encoded(beat: Beat) -> bytes:
    return msgspec.json.encode(beat)


def parse(subject: str, data: bytes) -> Beat:
    """Returns the beat of a message. Raises ValueError: it is none, or not of the exit that the subject names."""
    try:
        beat = read(data, Beat)
    except Unreadable as error:
        raise ValueError(f"no beat: {error}") from error
    if subject != SUBJECT + beat.node:
        raise ValueError("a beat that names another exit than its subject")
    return beat


class MeanRate:
    """Measures how much moves, from totals."""

    def __init__(self) -> None:
        self._totals: deque[tuple[int, int]] = deque()  # of CLOCK_BOOTTIME, bytes

    def after(self, total: int, boot_ms: int) -> int:
        """Returns the mean bytes per second of the last OVER_MS."""
        totals = self._totals
        if not totals or boot_ms - totals[-1][0] >= EVERY_MS - EARLY_MS:
            totals.append((boot_ms, total))
        while len(totals) > 1 and boot_ms - totals[1][0] >= OVER_MS:
            totals.popleft()
        since_ms, before = totals[0]
        return max(0, total - before) * 1000 // max(boot_ms - since_ms, EVERY_MS)


@dataclass(frozen=True, slots=True)
class Figures:
    """Holds where to ask what a beat says: live sessions, free addresses (none of devices or in quarantine is), bytes
    moved since the process started, the fastest line seen in bytes per second, and (gen, acc_rev) of the accounts."""

    live: Callable[[], int]
    room: Callable[[], int]
    moved: Callable[[], int]
    line: Callable[[], int]
    accounts: Callable[[], tuple[int, int]]


class OwnBeats:
    """Makes this exit's beats. `refusal`: why it refuses work for the fleet; None: it does not. `inst`: random."""

    def __init__(
        self,
        member: FleetMember,
        node: Node,
        figures: Figures,
        clock: Clock,
        *,
        inst: str,
        refusal: Callable[[Moment], str | None],
    ) -> None:
        self._member = member
        self._node = node
        self._figures = figures
        self._clock = clock
        self._inst = inst
        self._refusal = refusal
        self._since = clock.now().wall_ms
        self._rate = MeanRate()
        self._n = 0

    def now(self) -> Beat:
        """Returns how this exit stands. It has the number of the beat that was sent last."""
        now, node, figures = self._clock.now(), self._node, self._figures
        gen, acc_rev = figures.accounts()
        return Beat(
            node=self._member.id,
            p=SPOKEN,
            inst=self._inst,
            since=self._since,
            n=self._n,
            t=now.wall_ms,
            name=node.name,
            region=node.region,
            public_ip=node.public_ip,
            version=__version__,
            ready=node.health.healthy,
            drained=node.drained,
            live=figures.live(),
            room=figures.room(),
            mbps=self._rate.after(figures.moved(), now.boot_ms) // MEGABIT,
            line=figures.line() // MEGABIT,
            gen=gen,
            acc_rev=acc_rev,
        )

    @property
    def ready(self) -> bool:
        """Tells whether others may ask this exit: one that refuses work for the fleet is not ready."""
        return self._node.health.healthy and self._refusal(self._clock.now()) is None

    @property
    def drained(self) -> bool:
        return self._node.drained

    @property
    def accounts(self) -> tuple[int, int]:
        return self._figures.accounts()

    def next(self, *, leaving: bool = False) -> Beat:
        """Returns the beat to send now. `leaving`: the process ends, and takes no sessions any more."""
        self._n += 1
        return msgspec.structs.replace(self.now(), ready=self.ready and not leaving)
