"""What truly moved, and how much of it may be lost: kept beside the appliance, from what the kernel sees."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from tests.support.faults.carried import Carried

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.domain.entities import Baseline
    from appliance.network.wireguard.tunnel import Dump
    from tests.support.faults.host import Host


# Whether all that a dump has shown of a device is counted before the exit removes its peer.
SHOWN_IS_COUNTED = True
A_LOOK_MS = 2000  # from one to what follows of the next


class Pair(NamedTuple):
    """Bytes the exit received and sent."""

    rx: int = 0
    tx: int = 0

    def plus(self, other: Pair) -> Pair:
        return Pair(self.rx + other.rx, self.tx + other.tx)

    def minus(self, other: Pair) -> Pair:
        return Pair(self.rx - other.rx, self.tx - other.tx)

    def upto(self, other: Pair) -> Pair:
        return Pair(max(self.rx, other.rx), max(self.tx, other.tx))

    def fits(self, other: Pair) -> bool:
        return self.rx <= other.rx and self.tx <= other.tx


@dataclass(frozen=True, slots=True)
class Seen:
    """One peer in one dump: its counters, the life of the peer they belong to, and what had truly moved then."""

    boot_id: str
    ifindex: int
    counters: Pair
    life: int
    true: Pair


@dataclass(frozen=True, slots=True)
class Mark:
    """What the store has of a peer: its counters as last counted, and, of a device without a session, what it has
    counted of handshakes that came to nothing."""

    baseline: Baseline | None
    unfinished: Pair
    of_session: bool


class Ledger:
    """By public key. A peer's life is from its being added to its being removed, by whomever.

    `true`: all that ever moved. `committed`: what of it had moved at the last reading that the store took over.
    `lost`: how much the store may lack of that, because a life ended before its last bytes could be read.
    `unfinished`: what of `committed` came to nothing, and is to be billed with the device's next session.
    `carried`: when tunnels could carry.
    """

    def __init__(self, host: Host, reject_after_ms: int) -> None:
        self._host = host
        self.reject_after_ms = reject_after_ms
        self.carried = Carried(host, reject_after_ms)
        self.true: defaultdict[bytes, Pair] = defaultdict(Pair)
        self.committed: defaultdict[bytes, Pair] = defaultdict(Pair)
        self.lost: defaultdict[bytes, Pair] = defaultdict(Pair)
        self.unfinished: defaultdict[bytes, Pair] = defaultdict(Pair)
        self.undone: defaultdict[str, set[bytes]] = defaultdict(set)  # keys of openings that were undone, by account
        self._signs: defaultdict[bytes, list[tuple[int, bool]]] = defaultdict(list)  # (ran_ms, a handshake?)
        self._shown_at: defaultdict[bytes, deque[int]] = defaultdict(lambda: deque(maxlen=6))  # by dumps
        self._missed_at: dict[bytes, int] = {}
        self._lives = 0
        self._life: dict[bytes, int] = {}
        self.beat_at = 0
        self._seen: defaultdict[bytes, deque[Seen]] = defaultdict(lambda: deque(maxlen=6))
        self._shown: dict[bytes, Pair] = {}  # what had truly moved at the last dump that the process has seen
        self._shown_at_commit: dict[bytes, int] = {}
        self._commits = 0
        self._devices: dict[bytes, str] = {}
        self._new: set[bytes] = set()  # devices whose peers the store has not as installed
        self._sessions: set[bytes] = set()
        self._disowned: set[bytes] = set()  # whose peers are there, and no device's any more that they were of
        self._baselines: dict[bytes, tuple[Baseline, int | None]] = {}

    # The kernel's side -----------------------------------------------------------------------------

    def moved(self, key: bytes, bytes_: Pair) -> None:
        self.true[key] = self.true[key].plus(bytes_)

    def heard(self, key: bytes, *, handshake: bool) -> None:
        """A handshake, or the appliance installed the peer: idleness counts from here."""
        self._signs[key].append((self._host.ran_ms, handshake))

    def peer_added(self, key: bytes) -> None:
        self._lives += 1
        self._life[key] = self._lives

    def peer_removed(self, key: bytes) -> None:
        """The exit removes a peer. Of a device it has counted what it was shown; see also `dropped`.

        The peer of a new device it puts in once more if it was killed before it had noted that: who has just been
        handed the file shakes hands again.
        """
        owned = self._devices.keys() - self._disowned - self._new
        # A look from which a short dump has hidden the peer counts nothing of it, nor what one before it has seen.
        hidden = key in self._missed_at and self._host.ran_ms - self._missed_at[key] <= A_LOOK_MS
        if SHOWN_IS_COUNTED and key in owned and key in self._life and not hidden:
            before, life = self._baselines.get(key, (None, None))
            if self._seen[key]:
                self._note_hidden(key, self._seen[key][-1], before, life)
            self.committed[key] = self.committed[key].upto(self._shown.get(key, Pair()))
        self.peer_gone(key)

    def peer_gone(self, key: bytes, *, at_once_back: bool = False) -> None:
        """What moved since the last reading that was committed can never be read. Nothing for one that is not there."""
        if self._life.pop(key, None) is None:
            return
        self._disowned.discard(key)
        if at_once_back:
            self._hide_handshakes(key)
        else:
            self.heard(key, handshake=False)  # a client cannot be heard while its peer is away
        self.lost[key] = self.lost[key].plus(self.true[key].minus(self.committed[key]))
        self.committed[key] = self.true[key]
        self.carried.gone(key, self.beat_at)

    def put_back(self, key: bytes) -> None:
        """A replacement that fails may put back a peer that a stranger took: nobody knows that it was away."""
        del self._signs[key][-1:]
        self._hide_handshakes(key)

    def _hide_handshakes(self, key: bytes) -> None:
        """What handshakes there were since the last reading that was committed, the stranger has hidden.

        A dump that misses the peer is taken again at once, and the first of the two is what is committed.
        """
        missed = self._missed_at.get(key)
        read = max((at for at in self._shown_at[key] if at <= self.beat_at and at != missed), default=0)
        self._signs[key] = [(at, shook) for at, shook in self._signs[key] if not shook or at < read]

    def longest_quiet(self, key: bytes, since: int) -> int:
        """The longest time without a handshake while the peer stood, of those that ended after `since` (ran_ms)."""
        ends = [*(at for at, _ in self._signs[key]), self._host.ran_ms]
        return max((b - a for a, b in pairwise(ends) if b >= since), default=0)

    def dumped(self, dump: Dump) -> None:
        for key in self._life:
            state = dump.peers.get(key)
            if state is None:
                self._missed_at[key] = self._host.ran_ms
            else:
                counters = Pair(state.rx_bytes, state.tx_bytes)
                seen = Seen(self._host.boot_id, dump.ifindex, counters, self._life[key], self.true[key])
                self._seen[key].append(seen)
                self._shown_at[key].append(self._host.ran_ms)

    def looked_at(self, dump: Dump) -> None:
        """The process has a dump, which was taken a little before."""
        for key in self._life:
            state = dump.peers.get(key)
            if self._commits != self._shown_at_commit.get(key):
                # Of several, the first is what is counted: the others only show again what it misses.
                self._shown_at_commit[key] = self._commits
                self._shown[key] = Pair() if state is None else self._seen[key][-1].true
            if state is None:
                self.carried.not_shown(key, self.beat_at)
            elif state.last_handshake_ns:
                # A heartbeat proves nothing of the handshake of a device that has no session yet.
                waits = key in self._devices and key not in self._sessions
                proven_at = 0 if waits else self.beat_at
                if waits:
                    self.carried.at_the_latest_heartbeat(key, state.last_handshake_ns, self.beat_at)
                self.carried.shown(key, state.last_handshake_ns, proven_at)

    # The store's side ------------------------------------------------------------------------------

    def dropped(self, key: bytes) -> None:
        """The device is removed, or has another key: no session can have what came to nothing."""
        if key in self._life:
            self._disowned.add(key)
        self.lost[key] = self.lost[key].plus(self.unfinished.pop(key, Pair()))

    def stored(self, marks: Mapping[bytes, Mark], devices: dict[bytes, str], new: set[bytes], beat_at: int) -> None:
        """A transaction was committed; this is what the store has now (`devices`: their ids; `new`: those whose peers
        were not installed yet), and when the server was last known to be up."""
        for key in [key for key, device_id in self._devices.items() if devices.get(key) != device_id]:
            self.dropped(key)
        self.beat_at, self._devices, self._new = beat_at, devices, new
        self._sessions = {key for key, mark in marks.items() if mark.of_session}
        self._commits += 1
        for key in self._baselines.keys() - marks.keys():
            del self._baselines[key]
        self.unfinished = defaultdict(Pair, {key: mark.unfinished for key, mark in marks.items()})
        for key, mark in marks.items():
            before, life = self._baselines.get(key, (None, None))
            if mark.baseline is None:
                self._baselines.pop(key, None)
            elif mark.baseline != before:
                self._advance(key, mark.baseline, before, life)

    def _advance(self, key: bytes, baseline: Baseline, before: Baseline | None, life: int | None) -> None:
        counters, life_of = Pair(baseline.rx_bytes, baseline.tx_bytes), (baseline.boot_id, baseline.ifindex)
        dumps = reversed(self._seen[key])
        seen = next((s for s in dumps if s.counters == counters and (s.boot_id, s.ifindex) == life_of), None)
        if seen is None:
            raise AssertionError(f"a baseline that no dump showed: {baseline}, before it {before}")
        self._note_hidden(key, seen, before, life)
        self.committed[key] = self.committed[key].upto(seen.true)
        self._baselines[key] = (baseline, seen.life)

    def _note_hidden(self, key: bytes, seen: Seen, before: Baseline | None, life: int | None) -> None:
        """A stranger may have removed and re-added the peer. Once it has passed the old baseline, that is hidden."""
        if (
            before is not None
            and (before.boot_id, before.ifindex) == (seen.boot_id, seen.ifindex)
            and seen.life != life
        ):
            hidden = Pair(before.rx_bytes, before.tx_bytes)
            if hidden.fits(seen.counters):
                self.lost[key] = self.lost[key].plus(hidden)
