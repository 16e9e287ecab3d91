"""What accounts get and what it costs: the part of the configuration that a running server can take over."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.policy.pricing import Rates
from appliance.settings import by_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.settings import Settings, TierSettings

TAKEN_OVER = ("pricing", "tiers")


class Terms:
    """In force now. Whoever decides asks at that moment, and keeps nothing of it: they may change at any time.

    `rates` None: no price is configured. A session keeps those under which it was created.
    """

    tiers: Mapping[str, TierSettings]
    rates: Rates | None

    def __init__(self, settings: Settings) -> None:
        self.take_over(settings)

    def take_over(self, settings: Settings) -> None:
        price = settings.pricing
        self.tiers = settings.tiers
        self.rates = None
        if price is not None:
            self.rates = Rates(price.currency, price.millicents_per_minute, price.millicents_per_gib)


def in_force(running: Settings, read: Settings) -> Settings:
    """What a server runs with that has taken over what it can of `read`."""
    return replace(running, **{section: getattr(read, section) for section in TAKEN_OVER})


def left_out(running: Settings, read: Settings) -> list[str]:
    """The keys of `read` that differ from `running` and take a restart."""
    return [key for key in differing(by_key(running), by_key(read)) if not is_taken_over(key)]


def differing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def is_taken_over(key: str) -> bool:
    """Whether SIGHUP is enough for it."""
    return key.partition(".")[0] in TAKEN_OVER
