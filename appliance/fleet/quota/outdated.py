"""Decides which of the ledger's records it needs no more: a request that came next would begin as good a one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain import windows
from appliance.domain.windows import Window
from appliance.fleet.quota.escrow import LAPSES_MS

if TYPE_CHECKING:
    from appliance.fleet.quota.escrow import LedgerFacts, QuotaRecord, WindowRecord

# A request that was under way for longer would be heard as a new one. It is also longer than clocks may differ.
QUIET_MS = LAPSES_MS


def is_quiet(record: QuotaRecord, now_ms: int) -> bool:
    """Tells whether no exit has asked of late, so that no request is under way which the record has to order."""
    return all(now_ms - heard.at >= QUIET_MS for heard in record.heard.values())


def is_outdated(record: QuotaRecord, given: LedgerFacts) -> bool:
    """Tells whether the record says nothing that counts from now on.

    Its windows are over by all exits' clocks, no exit that is in the fleet may have a session, and a new record would
    be complete as well. The exits' own sessions are told anew by each request, so those the record lacks do no harm.
    """
    members, limits, now_ms = given.members, given.limits, given.now_ms
    untold = set(members) - set(given.told)
    return (
        is_quiet(record, now_ms)
        and not any(part.count for node, part in record.live.items() if node in members)
        and not (untold and (record.complete or untold & record.heard.keys()))
        and _is_over(record.traffic, limits.bytes_window * 1000, now_ms)
        and _is_over(record.time, limits.seconds_window * 1000, now_ms)
    )


def _is_over(window: WindowRecord, length_ms: int, now_ms: int) -> bool:
    return windows.at(Window(window.opened or None), length_ms + QUIET_MS, now_ms).opened_at is None
