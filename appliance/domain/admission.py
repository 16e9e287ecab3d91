"""Decides whether an account may open a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.domain.entities import State
from appliance.domain.errors import ApplianceError, InvalidRequest, LiveSessionLimitReached, QuotaExceeded

if TYPE_CHECKING:
    from appliance.domain.entities import Account, Session
    from appliance.domain.quota import Quota
    from appliance.domain.tiers import TierLimits

LONGEST_SESSION_S = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Admit:
    """Admits the session until `expires_at` (ms since the epoch), in place of `replaces`."""

    expires_at: int
    replaces: Session | None


@dataclass(frozen=True, slots=True)
class Refuse:
    error: ApplianceError


def decide(
    account: Account,
    tier: TierLimits,
    live: int,
    holder: Session | None,
    quota: Quota,
    wall_ms: int,
) -> Admit | Refuse:
    """Returns `Admit` or `Refuse` for a new session of `account`.

    `live`: how many sessions the account has, or is about to have, without those that are ending. `holder`: the session
    that has the client's key now; it does not count toward the limit, as it is replaced. In a fleet, the account may
    have as many sessions here as are lent to this exit.
    """
    if holder is not None and holder.account_id != account.id:
        return Refuse(InvalidRequest("client_public_key is in use by another account"))
    others = live - (holder is not None and holder.state is State.LIVE)
    most = tier.max_live_sessions if quota.grant is None else quota.grant.live
    if tier.max_live_sessions and others >= most:
        return Refuse(LiveSessionLimitReached())
    if quota.exceeded:
        return Refuse(QuotaExceeded(account.tier, quota))
    return Admit(expires_at=expires_at(tier, wall_ms), replaces=holder)


def expires_at(tier: TierLimits, wall_ms: int) -> int:
    """Returns when a session must end that begins at `wall_ms`."""
    return wall_ms + min(tier.max_session, LONGEST_SESSION_S) * 1000
