"""Computes what moved since a session was last counted. Pure; the only place that subtracts counters and clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from appliance.domain.carrying import Span
from appliance.domain.charges import Amount
from appliance.domain.entities import Baseline, State
from appliance.domain.windows import MOST, Use

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.domain.clock import Moment
    from appliance.domain.entities import Session

# How far the wall clock may be from where the last heartbeat says it is before time up to that heartbeat is labelled by
# it. The two clocks are read one after the other; a leap second is no step.
LABELS_DIFFER_MS = 1000


class Reading(Struct, frozen=True, gc=False):
    """Holds what one session used since it was last counted.

    Its tunnel could carry from `start_ms` to `end_ms` of the wall clock; its bytes moved evenly from `moved_ms` to
    `read_ms`, None: as the time. `after` is the session with `amount` counted. `baseline` is None if the counters were
    not read; the stored baseline then stays.
    """

    amount: Amount
    start_ms: int
    end_ms: int
    after: Session
    baseline: Baseline | None
    moved_ms: int | None = None
    read_ms: int | None = None

    @property
    def use(self) -> Use:
        """Returns what counts into the account's windows."""
        amount = self.amount
        return Use(amount.total_bytes, amount.time_ms, self.start_ms, self.end_ms, self.moved_ms, self.read_ms)


class Counters(Struct, frozen=True, gc=False):
    """Holds the bytes a sample adds to a session, and the baseline to commit together with them."""

    rx_bytes: int
    tx_bytes: int
    baseline: Baseline


def read_counters(baseline: Baseline | None, rx_bytes: int, tx_bytes: int, *, boot_id: str, ifindex: int) -> Counters:
    """Returns the bytes that moved since `baseline`, and the next baseline.

    A peer's counters start at zero when it is added to an interface and only grow until it is removed. So no
    baseline, another boot or another ifindex means that all the bytes are new. A counter below its baseline, with the
    same boot and ifindex, means that the peer was removed and added again: all its bytes are new as well. A re-added
    peer that has already passed its old baseline cannot be told from one that stayed; the difference is then billed,
    which is never more than what moved.
    """
    # The kernel counts to 2^64, the store to 2^63: the last bytes of nine exabytes are not billed.
    rx, tx = min(rx_bytes, MOST), min(tx_bytes, MOST)
    after = Baseline(boot_id, ifindex, rx, tx)
    if baseline is not None and (baseline.boot_id, baseline.ifindex) == (boot_id, ifindex):
        restarted = rx < baseline.rx_bytes or tx < baseline.tx_bytes
        if not restarted:
            rx, tx = rx - baseline.rx_bytes, tx - baseline.tx_bytes
    return Counters(rx, tx, after)


def elapsed_ms(session: Session, now: Moment) -> int:
    """Returns for how long the session's tunnel could carry since it was last counted.

    Returns 0 for a session that does not run, and across a reboot.
    """
    if session.state not in (State.LIVE, State.CLOSING) or session.counted_boot_id != now.boot_id:
        return 0
    return max(0, min(now.boot_ms, session.carries_until_ms) - session.counted_until_ms)


def use_of_time(session: Session, now: Moment) -> Use | None:
    """Returns the same time with its wall-clock times; None: there is none."""
    time_ms = elapsed_ms(session, now)
    return labelled(Span(session.counted_until_ms, session.counted_until_ms + time_ms), now) if time_ms else None


def labelled(span: Span, now: Moment) -> Use:
    """Returns the use of a span up to `now`, with the wall-clock times that it had as the wall clock stands."""
    ahead_ms = now.wall_ms - now.boot_ms
    return Use(0, span.until_ms - span.from_ms, ahead_ms + span.from_ms, ahead_ms + span.until_ms)


def total(session: Session) -> Amount:
    return Amount(session.counted_ms, session.bytes_in, session.bytes_out)


def running(session: Session, now: Moment) -> Amount:
    """Returns the session's time since it was last counted; its bytes are 0, as no counters are read."""
    return Amount(time_ms=elapsed_ms(session, now))


def seconds(session: Session, heartbeat: Moment, now: Moment) -> int:
    """Returns the session's whole seconds so far, as they will be counted. `heartbeat`: the last one stored."""
    readings = uncounted([session], heartbeat, now)
    return (session.counted_ms + sum(reading.amount.time_ms for reading in readings)) // 1000


def capped(session: Session, amount: Amount) -> Amount:
    """Cuts `amount` to what fits into the session's totals, so that totals, days and charges keep the same sum."""
    return Amount(
        amount.time_ms,
        min(amount.bytes_in, MOST - session.bytes_in),
        min(amount.bytes_out, MOST - session.bytes_out),
    )


def is_relabelled(heartbeat: Moment, now: Moment) -> bool:
    """Tells whether the wall clock was set since the heartbeat: time up to it keeps the label that it had."""
    if heartbeat.boot_id != now.boot_id:
        return False
    moved_ms = (now.wall_ms - now.boot_ms) - (heartbeat.wall_ms - heartbeat.boot_ms)
    return abs(moved_ms) > LABELS_DIFFER_MS


def uncounted(sessions: Iterable[Session], heartbeat: Moment, now: Moment) -> list[Reading]:
    """Returns the readings that count the time of those of the sessions that run, in the order in which it began.

    Nothing of the time that passes is stored: this is what any reader shows, and what is stored when it is counted.
    Of another boot, time counts up to the heartbeat. `heartbeat`: the last one stored.
    """
    running_now = sorted(
        (s for s in sessions if s.state in (State.LIVE, State.CLOSING)), key=lambda s: s.counted_until_ms
    )
    readings = []
    if is_relabelled(heartbeat, now):
        readings = [read_time(s, heartbeat) for s in running_now if elapsed_ms(s, heartbeat)]
        labelled = {r.after.id: r.after for r in readings}
        running_now = [labelled.get(s.id, s) for s in running_now]
    ends = ((s, now if s.counted_boot_id == now.boot_id else heartbeat) for s in running_now)
    return readings + [read_time(s, end) for s, end in ends if elapsed_ms(s, end)]


def unspent(sessions: Iterable[Session], heartbeat: Moment, now: Moment) -> list[Use]:
    """Returns what the same sessions use of their account's windows, in order, and what these do not count yet."""
    if is_relabelled(heartbeat, now):
        return [reading.use for reading in uncounted(sessions, heartbeat, now)]
    ends = ((s, now if s.counted_boot_id == now.boot_id else heartbeat) for s in sessions)
    uses = (use_of_time(s, end) for s, end in ends)
    return sorted((use for use in uses if use is not None), key=lambda use: use.start_ms)


def read_time(session: Session, upto: Moment, resume: Moment | None = None) -> Reading:
    """Counts the session's time up to `upto`, without its counters; the next count starts there.

    `resume`: it starts then, and the tunnel cannot carry before the next handshake.
    """
    use = use_of_time(session, upto) or Use(0, 0, upto.wall_ms, upto.wall_ms)
    amount = Amount(time_ms=use.time_ms)
    after = counted(session, amount, resume or upto)
    after = after if resume is None else replace(after, carries_until_ms=0)
    return Reading(amount, use.start_ms, use.end_ms, after, None)


def counted(session: Session, amount: Amount, now: Moment) -> Session:
    """Returns the session with `amount` counted, up to `now`."""
    return replace(
        session,
        counted_ms=session.counted_ms + amount.time_ms,
        bytes_in=session.bytes_in + amount.bytes_in,
        bytes_out=session.bytes_out + amount.bytes_out,
        counted_until_ms=now.boot_ms,
        counted_boot_id=now.boot_id,
    )
