"""Holds tiers and prices: configuration that a running server can reload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.config.settings import KEEP, KEYS
from appliance.domain.pricing import Rates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.config.settings import Settings, TierSettings


class Terms:
    """Holds the terms in force. Read them for each decision and do not keep them: they may change at any time.

    `rates` None: no price is configured. A session keeps those under which it was created. `keep`: for how many seconds
    after a session's end its invoice lines stay; 0: for ever.
    """

    tiers: Mapping[str, TierSettings]
    rates: Rates | None
    keep: int

    def __init__(self, settings: Settings) -> None:
        self.take_over(settings)

    def take_over(self, settings: Settings) -> None:
        price = settings.pricing
        self.tiers = settings.tiers
        self.rates = None
        self.keep = KEYS["pricing", "keep"].kind.parse(KEEP) if price is None else price.keep
        if price is not None:
            self.rates = Rates(price.currency, price.millicents_per_minute, price.millicents_per_gib)
