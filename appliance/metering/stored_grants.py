"""Tells commands what is left of a fleet's limits, by what the store has of it: only the server knows of a cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain.grant import Grant

if TYPE_CHECKING:
    from appliance.domain.entities import Account
    from appliance.domain.quota import Lent
    from appliance.domain.tiers import TierLimits
    from appliance.domain.windows import Window, Windows
    from appliance.store.queries.escrow import EscrowRow, LentOfWindow


def lent_by(row: EscrowRow | None) -> Lent | None:
    """Returns what tells it of the row's account; None: there is none, as on a single exit."""
    if row is None:
        return None

    def lent(account: Account, tier: TierLimits, used: Windows) -> Grant:  # noqa: ARG001 (as a fleet's leasing is asked)
        left_bytes, more_bytes, others_bytes = _left(used.traffic, tier.bytes_limit, row.traffic)
        left_ms, more_ms, others_ms = _left(used.time, tier.seconds_limit * 1000, row.time)
        may_have, elsewhere = row.live.held + row.live.free, row.live.others
        return Grant(left_bytes, left_ms, more_bytes, more_ms, others_bytes, others_ms, may_have, elsewhere)

    return lent


def _left(window: Window, limit: int, lent: LentOfWindow) -> tuple[int, bool, int]:
    """Returns what is left of what was lent, whether there may be more, and what others have used."""
    if not lent.opened or lent.opened != window.opened_at:
        return limit - window.used, window.used < limit, 0
    room = limit - window.used - lent.others
    return min(lent.granted - window.used, room), lent.free > 0 and room > 0, lent.others
