"""Tells what a device's account allows it now, as memory has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.device import Circumstances
from appliance.metering import usage

if TYPE_CHECKING:
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Account
    from appliance.domain.tiers import TierLimits
    from appliance.store.live import LiveSessions


def without_session(
    live: LiveSessions,
    account: Account,
    tier: TierLimits,
    now: Moment,
    *,
    paused: bool,
    drained: bool,
    opening: int = 0,
) -> Circumstances:
    """Returns the circumstances of a device without a session. `opening`: sessions of its account about to begin."""
    limited = bool(tier.bytes_limit or tier.seconds_limit)
    return Circumstances(
        disabled=account.disabled,
        paused=paused,
        drained=drained,
        quota=usage.in_memory(live, account, tier, now) if limited else None,
        live=live.number_live(account.id) + opening,
        live_limit=tier.max_live_sessions,
    )
