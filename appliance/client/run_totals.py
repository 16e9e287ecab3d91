"""Adds up what the sessions of one run of `connect` came to. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from appliance.client.api.responses import COST

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class RunTotals:
    """Holds sums over the exit's figures of `sessions` sessions. `seconds`: None if it does not tell them of each.

    `millicents`: by currency, of those with a cost.
    """

    sessions: int = 0
    seconds: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    millicents: Mapping[str, int] = field(default_factory=dict)

    def plus(self, session: Mapping[str, Any]) -> RunTotals:
        """Returns the sums with another session, of which the exit has told this; empty: nothing yet."""
        if not session:
            return self
        seconds = session.get("seconds")
        if seconds is not None and self.sessions:
            seconds = None if self.seconds is None else self.seconds + seconds
        millicents = dict(self.millicents)
        if all(name in session for name in COST):
            currency = str(session.get("cost_currency", ""))
            millicents[currency] = millicents.get(currency, 0) + sum(session[name] for name in COST)
        return RunTotals(
            self.sessions + 1,
            seconds,
            self.bytes_in + session["bytes_in"],
            self.bytes_out + session["bytes_out"],
            millicents,
        )
