"""Decides which live sessions end now, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.entities import Reason

if TYPE_CHECKING:
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Session
    from appliance.domain.quota import Quota
    from appliance.domain.tiers import TierLimits


def decide(session: Session, tier: TierLimits, quota: Quota | None, now: Moment) -> Reason | None:
    """Returns the reason for which `session` ends, or None.

    `tier` is the account's current tier, `quota` its use of the windows (None if unlimited): all sessions of an
    account end together when it exhausts a window.

    Expiry uses the wall clock. Idleness uses CLOCK_BOOTTIME within one boot: neither a reboot nor a step of the wall
    clock ends a session as idle.
    """
    if now.wall_ms >= session.expires_at:
        return Reason.EXPIRED
    if quota is not None and quota.exceeded:
        return Reason.QUOTA_EXCEEDED
    if tier.idle_timeout and session.quiet_boot_id == now.boot_id:
        quiet_ms = now.boot_ms - session.quiet_since_ms
        if quiet_ms > tier.idle_timeout * 1000:
            return Reason.IDLE
    return None
