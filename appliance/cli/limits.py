"""Says in one line what a tier allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.client.humanize import brief_span, size

if TYPE_CHECKING:
    from appliance.config.load import TierSettings


def in_words(tier: TierSettings) -> str:
    """Returns for example "5.0 GiB in 7d, 2h in 1d, 5 sessions at a time, each for up to 30d"."""
    live = tier.max_live_sessions
    sessions = "any number of sessions" if not live else "1 session" if live == 1 else f"{live} sessions"
    return ", ".join(
        [
            f"{size(tier.bytes_limit)} in {brief_span(tier.bytes_window)}" if tier.bytes_limit else "bytes unmetered",
            f"{brief_span(tier.seconds_limit)} in {brief_span(tier.seconds_window)}"
            if tier.seconds_limit
            else "time unmetered",
            f"{sessions} at a time, each for up to {brief_span(tier.max_session)}",
        ]
    )
