"""Computes what moved since a session was last counted. Pure; the only place that subtracts counters and clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from appliance.domain.charges import Amount
from appliance.domain.entities import Baseline, State
from appliance.domain.windows import MOST, Use

if TYPE_CHECKING:
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Session


class Reading(Struct, frozen=True, gc=False):
    """Holds what one session used since it was last counted.

    `amount` moved evenly from `start_ms` to `end_ms` of the wall clock. `after` is the session with it counted.
    `baseline` is None if the counters were not read; the stored baseline then stays.
    """

    amount: Amount
    start_ms: int
    end_ms: int
    after: Session
    baseline: Baseline | None


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
    """Returns the session time since it was last counted: 0 for a session that does not run, and across a reboot."""
    if session.state not in (State.LIVE, State.CLOSING) or session.counted_boot_id != now.boot_id:
        return 0
    return max(0, now.boot_ms - session.counted_until_ms)


def use(amount: Amount, now: Moment) -> Use:
    """Labels `amount` with wall-clock times: an interval as long as the measured session time, ending now."""
    return Use(
        total_bytes=amount.total_bytes,
        time_ms=amount.time_ms,
        start_ms=now.wall_ms - amount.time_ms,
        end_ms=now.wall_ms,
    )


def total(session: Session) -> Amount:
    return Amount(session.counted_ms, session.bytes_in, session.bytes_out)


def running(session: Session, now: Moment) -> Amount:
    """Returns the session's time since it was last counted; its bytes are 0, as no counters are read."""
    return Amount(time_ms=elapsed_ms(session, now))


def capped(session: Session, amount: Amount) -> Amount:
    """Cuts `amount` to what fits into the session's totals, so that totals, days and charges keep the same sum."""
    return Amount(
        amount.time_ms,
        min(amount.bytes_in, MOST - session.bytes_in),
        min(amount.bytes_out, MOST - session.bytes_out),
    )


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
