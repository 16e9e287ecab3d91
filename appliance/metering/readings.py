"""Computes what a dump adds to one session. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain import accounting, carrying, clock_steps
from appliance.domain.accounting import Reading
from appliance.domain.carrying import Span
from appliance.domain.charges import Amount
from appliance.domain.clock import Moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.domain.entities import Baseline, Session
    from appliance.metering.handshakes import Shaken
    from appliance.network.wireguard.tunnel import PeerState


def read_session(
    session: Session,
    sample: PeerState,
    baseline: Baseline | None,
    ifindex: int,
    now: Moment,
    unmoved_until: Moment,
    shaken: Shaken | None,
) -> Sequence[Reading]:
    """Returns what `sample` adds to `session`, in order: nothing if nothing has moved and there was no handshake.

    The last reading has all bytes; each span before it, in which the tunnel could carry, is one of its own.
    `unmoved_until`: the last moment at which its peer is known to have been as it was last counted. `shaken`: the
    handshakes since then.
    """
    moved = accounting.read_counters(baseline, sample.rx_bytes, sample.tx_bytes, boot_id=now.boot_id, ifindex=ifindex)
    bytes_ = accounting.capped(session, Amount(0, moved.rx_bytes, moved.tx_bytes))
    unmoved = moved.baseline == baseline or (baseline is None and not bytes_.total_bytes)
    if unmoved and shaken is None:
        return ()
    moved_ms, carries_until_ms = _moved_since(session, unmoved_until, now), _carries_until(session, shaken, now)
    *before, last = _carried(session, shaken, now) or [Span(now.boot_ms, now.boot_ms)]
    readings = []
    for span in before:
        readings.append(_of_time(session, span, now))
        session = readings[-1].after
    use = accounting.labelled(last, now)
    amount = bytes_ + Amount(time_ms=use.time_ms)
    after = replace(accounting.counted(session, amount, now), carries_until_ms=carries_until_ms)
    if shaken is not None:
        after = replace(
            after,
            last_handshake_at=clock_steps.handshake_at(shaken.seen_ns // 1_000_000, moved_ms, now.wall_ms),
            handshake_seen_ns=shaken.seen_ns,
            quiet_since_ms=now.boot_ms,
            quiet_boot_id=now.boot_id,
        )
    return [*readings, Reading(amount, use.start_ms, use.end_ms, after, moved.baseline, moved_ms, now.wall_ms)]


def _carried(session: Session, shaken: Shaken | None, now: Moment) -> list[Span]:
    """Returns in which spans the tunnel could carry since the session was last counted."""
    counted_ms = _counted_until(session, now)
    spans = carrying.extended((), Span(counted_ms, counted_ms + accounting.elapsed_ms(session, now)))
    for span in () if shaken is None else shaken.spans:
        spans = carrying.extended(spans, span)
    return carrying.between(spans, counted_ms, now.boot_ms)


def _carries_until(session: Session, shaken: Shaken | None, now: Moment) -> int:
    known_ms = session.carries_until_ms if session.counted_boot_id == now.boot_id else 0
    return known_ms if shaken is None or not shaken.spans else max(known_ms, shaken.spans[-1].until_ms)


def _of_time(session: Session, span: Span, now: Moment) -> Reading:
    use = accounting.labelled(span, now)
    amount, until = Amount(time_ms=use.time_ms), Moment(use.end_ms, span.until_ms, now.boot_id)
    return Reading(amount, use.start_ms, use.end_ms, accounting.counted(session, amount, until), None)


def _moved_since(session: Session, unmoved_until: Moment, now: Moment) -> int:
    """Returns from when on (wall clock) the bytes have moved that are new."""
    if session.counted_boot_id != now.boot_id:
        return now.wall_ms
    known_ms = unmoved_until.boot_ms if unmoved_until.boot_id == now.boot_id else 0
    return now.wall_ms - max(0, now.boot_ms - max(session.counted_until_ms, known_ms))


def _counted_until(session: Session, now: Moment) -> int:
    return session.counted_until_ms if session.counted_boot_id == now.boot_id else 0
