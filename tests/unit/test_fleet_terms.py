"""A spoke has the hub's tiers and prices, and says once what it has otherwise in its own file."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from appliance.config.load import parse_settings
from appliance.config.plans import Terms
from appliance.domain.errors import FleetError
from appliance.fleet.accounts import terms
from appliance.fleet.accounts.terms import FollowedTerms, over, told
from appliance.store.queries import fleet_terms
from tests.support.fleet.followers import AMS, followed, turn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from appliance.config.settings import Settings, TierSettings

OWN = parse_settings('[node]\nregion = "ams"\n', {}, "host")
FLEETS = parse_settings(
    """
    [tiers.free]
    bytes_limit = "1 GiB"
    max_devices = "none"
    [tiers.anonymous]
    max_devices = 2
    [pricing]
    currency = "usd"
    millicents_per_gib = 5
    """,
    {},
    "host",
)


def test_a_host_has_the_hubs_terms_and_its_own_of_the_rest() -> None:
    """Every tier, and the prices; also where the host has none, or the hub."""
    mine = over(OWN, told(FLEETS))
    assert (mine.tiers, mine.pricing) == (dict(FLEETS.tiers), FLEETS.pricing)
    assert replace(mine, tiers=OWN.tiers, pricing=OWN.pricing) == OWN
    assert over(FLEETS, told(OWN)).pricing is None
    assert told(mine) == told(FLEETS)


def test_other_versions_are_understood() -> None:
    """Keys that this one does not know are passed over; those that the other one does not stay the host's own."""
    text = json.loads(told(FLEETS))
    text["tiers"]["free"]["speed"] = 7
    text["tiers"]["gold"] = {"bytes_limit": 1}
    del text["tiers"]["free"]["idle_timeout"], text["tiers"]["anonymous"]
    mine = over(OWN, json.dumps(text | {"more": 1}))
    assert mine.tiers["free"] == FLEETS.tiers["free"]
    assert mine.tiers["anonymous"] == OWN.tiers["anonymous"]
    assert set(mine.tiers) == set(OWN.tiers)


BROKEN: dict[str, Callable[[dict[str, dict[str, object]]], object]] = {
    "text": lambda tiers: tiers["free"].update(bytes_limit="1 GiB"),
    "negative": lambda tiers: tiers["free"].update(bytes_limit=-1),
    "huge": lambda tiers: tiers["free"].update(bytes_limit=2**60),
    "null": lambda tiers: tiers["free"].update(bytes_limit=None),
    "a list": lambda tiers: tiers["free"].update(bytes_limit=[]),
}


@pytest.mark.parametrize("breaks", BROKEN.values(), ids=BROKEN)
def test_terms_that_are_none_change_nothing(
    breaks: Callable[[dict[str, dict[str, object]]], object], caplog: pytest.LogCaptureFixture
) -> None:
    """They are logged, and the host's own stay in force."""
    text = json.loads(told(FLEETS))
    breaks(text["tiers"])
    with pytest.raises(FleetError):
        over(OWN, json.dumps(text))
    assert FollowedTerms(OWN, json.dumps(text), "fra1").over(OWN) is OWN
    assert "not understood" in caplog.text


def test_what_a_host_has_otherwise_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """With both figures; again only when they differ in something else."""
    followed_terms = FollowedTerms(OWN, told(FLEETS), "fra1")
    for _ in range(3):
        followed_terms.over(OWN)
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "kept on fra1; this host's own are ignored: " in warning.getMessage()
    assert "tiers.anonymous.max_devices is 2 there, None here" in warning.getMessage()
    assert "pricing.currency is usd there, not set here" in warning.getMessage()
    assert ", and 3 more" in warning.getMessage()
    caplog.clear()
    assert FollowedTerms(OWN, told(OWN), "fra1").over(OWN) == OWN
    assert FollowedTerms(OWN, None, "fra1").over(FLEETS) is FLEETS
    assert caplog.records == []


def test_a_host_that_begins_to_lead_goes_by_its_own_terms(tmp_path: Path) -> None:
    """It went by the hub's before; where they are the same nothing is applied."""

    async def story() -> None:
        taken: list[Settings] = []

        class Ticker:
            async def settle(self, _tiers: Mapping[str, TierSettings]) -> None: ...

            async def tick(self) -> None: ...

        async with followed(tmp_path) as (one, _):
            await terms.tell(one.store, FLEETS)
            for _round in range(2):
                await terms.lead(one.store, OWN, Ticker(), taken.append)  # type: ignore[arg-type]
            assert taken == [OWN]
            async with one.store.read() as db:
                assert await fleet_terms.read(db) == told(OWN)

    asyncio.run(story())


def test_new_terms_are_taken_over_as_by_a_reload(tmp_path: Path) -> None:
    """From the hub's file to the spoke's terms in force, in the order of SIGHUP."""

    class Ticks:
        def __init__(self) -> None:
            self.done: list[str] = []

        async def settle(self, tiers: Mapping[str, TierSettings] | None) -> None:
            assert tiers == FLEETS.tiers
            self.done.append("settle")

        async def tick(self) -> None:
            self.done.append("tick")

    async def story() -> None:
        in_force, ticks = Terms(OWN), Ticks()
        spokes_terms = FollowedTerms(OWN, None, "fra1")

        def take_over(settings: Settings) -> None:
            ticks.done.append("take over")
            in_force.take_over(settings)

        async with followed(tmp_path, AMS) as (one, (ams,)):
            for _ in range(2):
                await terms.tell(one.store, FLEETS)
                await turn(one, [ams])
            (text,) = ams.terms
            await spokes_terms.take(text, ticks, take_over)  # type: ignore[arg-type]  # what is asked of a Ticker
        assert ticks.done == ["settle", "take over", "tick"]
        assert in_force.tiers == FLEETS.tiers
        assert in_force.rates is not None
        assert in_force.rates.currency == "usd"

    asyncio.run(story())
