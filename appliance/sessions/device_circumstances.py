"""Tells what a device's account allows it now, as memory has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.device import Circumstances
from appliance.metering import usage

if TYPE_CHECKING:
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Account
    from appliance.domain.quota import Lent, Quota
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
    opening: int | None = None,
    lent: Lent | None = None,
) -> Circumstances:
    """Returns the circumstances of a device without a session.

    `opening`: sessions of its account about to begin, where the device's is to begin too; None: it is not. `lent`: see
    `quota.measure`.
    """
    limited = bool(tier.bytes_limit or tier.seconds_limit or (tier.max_live_sessions and lent is not None))
    quota = usage.in_memory(live, account, tier, now, lent) if limited else None
    own = live.number_live(account.id) + (opening or 0)
    return Circumstances(
        disabled=account.disabled,
        paused=paused,
        drained=drained,
        quota=quota,
        live=counted_live(own, tier.max_live_sessions, quota, begins=opening is not None),
        live_limit=tier.max_live_sessions,
    )


def counted_live(own: int, limit: int, quota: Quota | None, *, begins: bool) -> int:
    """Returns how many live sessions count toward the account's limit. `own`: those on this exit.

    In a fleet, those on other exits count too. A session that `begins` needs what is lent to this exit: what of the
    limit is not lent to it counts as used.
    """
    if not limit or quota is None or quota.grant is None:
        return own
    not_lent = limit - quota.grant.live
    return own + (not_lent if begins else min(not_lent, quota.grant.others_live))
