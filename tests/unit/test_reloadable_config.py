"""What a running server takes over of a changed configuration, and what it does not."""

from __future__ import annotations

from appliance.config.load import parse_settings
from appliance.config.plans import Terms
from appliance.config.reloadable import in_force, left_out
from appliance.domain.pricing import Rates

BEFORE = parse_settings("", {}, "exit")


def test_tiers_and_prices_are_taken_over_at_once() -> None:
    """Tiers and prices are the new ones at once, and no restart is asked for."""
    terms = Terms(BEFORE)
    assert terms.rates is None
    after = parse_settings(
        '[tiers.free]\nseconds_limit = "1m"\nmax_devices = "none"\n[pricing]\nmillicents_per_gib = 7', {}, "exit"
    )
    terms.take_over(after)
    assert terms.tiers["free"].seconds_limit == 60
    assert terms.tiers["free"].max_devices is None
    assert terms.rates == Rates("eur", 1000, 7)
    assert list(left_out(BEFORE, after)) == []
    terms.take_over(BEFORE)
    assert terms.rates is None


def test_every_other_differing_key_is_named() -> None:
    """Every other key that differs is named."""
    after = parse_settings(
        '[node]\nregion = "fsn"\n[wireguard]\nlisten_port = 1\n[meter]\ninterval = "1s"', {}, "another"
    )
    assert list(left_out(BEFORE, after)) == [
        *("node.name", "node.region", "wireguard.listen_port", "wireguard.endpoint_port", "meter.interval"),
    ]


def test_a_fleet_s_periods_are_taken_over_and_its_addresses_are_not() -> None:
    """A hub's server keeps its port while it runs."""
    after = parse_settings('[fleet]\nreport = "5s"\nlisten = "127.0.0.1:1"\nadvertise = "hub.example.net"', {}, "exit")
    assert list(left_out(BEFORE, after)) == ["fleet.listen", "fleet.advertise"]
    now = in_force(BEFORE, after).fleet
    assert (now.report, now.listen, now.advertise) == (5, BEFORE.fleet.listen, None)
