"""Takes the fleet's tiers and prices over: a hub tells its own, the others have the hub's in place of theirs."""

from __future__ import annotations

import logging
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, TypeVar

import msgspec

from appliance.config.reloadable import differing
from appliance.config.settings import TIERS, Pricing, TierSettings, by_key
from appliance.domain.errors import FleetError
from appliance.store.queries import fleet_terms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from appliance.config.settings import Settings
    from appliance.sessions.ticker import Ticker
    from appliance.store.database import Store

log = logging.getLogger(__name__)

S = TypeVar("S", TierSettings, Pricing)
Figure = int | str | None

LARGEST = 2**53
MOST_NAMED = 4  # of the keys that differ
PRICED = Pricing("eur", 0, 0, 0)  # what is not told of a price that a host does not have


class FleetTerms(msgspec.Struct, frozen=True):
    """Holds tiers and prices as a hub tells them, by the names of their keys. `pricing` None: no price."""

    tiers: dict[str, dict[str, Figure]]
    pricing: dict[str, Figure] | None = None


def told(settings: Settings) -> str:
    """Returns a hub's terms, for `fleet_terms`."""
    pricing = None if settings.pricing is None else asdict(settings.pricing)
    terms = FleetTerms({tier: asdict(settings.tiers[tier]) for tier in TIERS}, pricing)
    return msgspec.json.encode(terms, order="deterministic").decode()


async def tell(store: Store, settings: Settings) -> None:
    """Has the fleet follow a hub's terms, at its start and when SIGHUP has changed them. Raises StoreUnavailable."""
    async with store.write() as db:
        await fleet_terms.put(db, told(settings))


async def lead(store: Store, settings: Settings, ticker: Ticker, take_over: Callable[[Settings], None]) -> None:
    """Tells a hub's own terms as it begins, and goes by them: it may have followed another hub's until now.

    Raises StoreUnavailable.
    """
    async with store.read() as db:
        before = await fleet_terms.read(db)
    await tell(store, settings)
    if before is not None and before != told(settings):
        await apply(settings, ticker.settle, take_over, ticker.tick)


def over(own: Settings, text: str) -> Settings:
    """Returns a host's settings with the fleet's terms. What another version does not tell stays the host's own.

    Raises FleetError if they are none.
    """
    try:
        terms = msgspec.json.decode(text, type=FleetTerms)
        tiers = {tier: _with(own.tiers[tier], terms.tiers.get(tier, {})) for tier in own.tiers}
        pricing = None if terms.pricing is None else _with(own.pricing or PRICED, terms.pricing)
    except (msgspec.MsgspecError, ValueError) as error:
        raise FleetError(f"the hub's tiers and prices are not understood: {error}") from error
    return replace(own, tiers=tiers, pricing=pricing)


def _with(section: S, told_: Mapping[str, Figure]) -> S:
    """Returns the section with these figures; those that it has no key for are of other versions. Raises ValueError."""
    known = {field.name: told_[field.name] for field in fields(section) if field.name in told_}
    for name, figure in known.items():
        had = getattr(section, name)
        if name == "max_devices" and figure is None:
            continue
        if isinstance(had, str) != isinstance(figure, str) or figure is None:
            raise ValueError(f"{name} is {figure!r}")
        if isinstance(figure, int) and not 0 <= figure <= LARGEST:
            raise ValueError(f"{name} is {figure}")
    return replace(section, **known)  # type: ignore[arg-type]  # of its own types, as was just checked


class FollowedTerms:
    """Holds the fleet's terms on a spoke. `text`: as last stored; None: the hub has told none yet.

    `kept_on`: the hub's name, for the log.
    """

    def __init__(self, own: Settings, text: str | None, kept_on: str) -> None:
        self._own = own
        self._text = text
        self._kept_on = kept_on
        self._said: list[str] = []

    def over(self, own: Settings) -> Settings:
        """Returns settings that were read, with the fleet's terms; warns once of what they differ in.

        For the start, and for SIGHUP. Terms that are not understood change nothing.
        """
        self._own = own
        if self._text is None:
            return own
        try:
            fleets = over(own, self._text)
        except FleetError as error:
            log.error("%s", error)
            return own
        self._warn(by_key(own), by_key(fleets))
        return fleets

    def _warn(self, own: Mapping[str, str], fleets: Mapping[str, str]) -> None:
        named = [
            f"{key} is {fleets.get(key, 'not set')} there, {own.get(key, 'not set')} here"
            for key in differing(own, fleets)
        ]
        if named and named != self._said:
            more = f", and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
            log.warning(
                "tiers and prices are the fleet's, kept on %s; this host's own are ignored: %s%s",
                *(self._kept_on, "; ".join(named[:MOST_NAMED]), more),
            )
        self._said = named

    async def take(self, text: str, ticker: Ticker, take_over: Callable[[Settings], None]) -> None:
        """Takes new terms over as SIGHUP does: what was used so far counts by the old ones."""
        self._text = text
        await apply(self.over(self._own), ticker.settle, take_over, ticker.tick)


async def apply(
    settings: Settings,
    settle: Callable[[Mapping[str, TierSettings]], Awaitable[None]],
    take_over: Callable[[Settings], None],
    tick: Callable[[], Awaitable[None]],
) -> None:
    """Applies settings to a running exit, in the order of a reload."""
    await settle(settings.tiers)
    take_over(settings)
    await tick()
