"""What doctor says of a fleet, on facts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from appliance.fleet.claims.taken import TakenClaims
from appliance.fleet.link.link import LinkState
from appliance.fleet.presence.directory import TAKEN_OUT, UNHEARD, Presence
from appliance.fleet.status.doctor_facts import standing
from appliance.fleet.status.status import KnownTokens, ReportState, fleet_status
from appliance.fleet.status.status_file import NotedStatus
from appliance.ops.doctor import fleet
from appliance.ops.doctor.diagnosis import diagnose_fleet
from appliance.ops.doctor.finding import Finding, Status
from appliance.ops.doctor.fleet import CertificateDates, FleetFacts, FleetPeer, FleetStanding, HubPort
from tests.support.fleet.members import AMS, HERE, a_beat, a_member, at
from tests.support.virtual_clock import AFTERNOON

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 86_400_000
AMS1, SIN1 = FleetPeer("ams1", True, None, 40), FleetPeer("sin1", True, None, -40)
WELL = FleetFacts(
    role="spoke",
    now_ms=AFTERNOON,
    served=True,
    hubs=("192.0.2.1:7422",),
    standing=FleetStanding(alone=None, cut_off_since=None, unsent=0, peers=(AMS1, SIN1)),
    certificates=(CertificateDates("the fleet's authority", AFTERNOON - DAY, AFTERNOON + 7000 * DAY, renewed=False),),
    conflicts=0,
)
CUT = {"alone": "cut off", "cut_off_since": AFTERNOON - 90 * 60_000, "unsent": 12}


def stands(**changes: Any) -> FleetFacts:
    assert WELL.standing is not None
    return replace(WELL, standing=replace(WELL.standing, **changes))


def certified(begins: int, ends: int, *, renewed: bool) -> FleetFacts:
    dates = CertificateDates("the hub's certificate", AFTERNOON + begins, AFTERNOON + ends, renewed)
    return replace(WELL, certificates=(*(WELL.certificates or ()), dates))


def skewed(*ms: int) -> FleetFacts:
    return stands(peers=tuple(FleetPeer(f"n{i}", True, None, each) for i, each in enumerate(ms)))


def test_a_fleet_that_works_is_ok() -> None:
    """Every check is ok; each has a name of its own, and none fails on a host of which nothing is known."""
    found = diagnose_fleet(WELL)
    assert {each.status for each in found} == {Status.OK}
    assert len({each.check for each in found}) == len(fleet.CHECKS)
    unknown = diagnose_fleet(replace(WELL, standing=None, certificates=None))
    assert not [each.what for each in unknown if "cannot be checked" in each.what]


def test_the_authority_is_replaced_on_the_hub() -> None:
    """A spoke's doctor sends there."""
    ending = certified(-DAY, 29 * DAY, renewed=False)
    assert fleet.certificates(replace(ending, role="hub")).mend == "wg-appliance fleet rotate-ca"
    assert fleet.certificates(replace(ending, role="spoke")).mend == "on the hub: wg-appliance fleet rotate-ca"


@pytest.mark.parametrize(
    ("check", "facts", "status", "says"),
    [
        (fleet.hub, replace(WELL, served=False), "warning", "the server is not running"),
        (fleet.hub, replace(WELL, standing=None), "warning", "has not noted"),
        (fleet.hub, stands(unsent=3), "ok", "connected, 3 sessions are not reported yet"),
        (fleet.hub, stands(**CUT), "warning", "cut off since 2026-09-21T12:50:00Z (1h), 12 sessions are not reported"),
        (fleet.hub, stands(**CUT, failure="h does not know this host"), "warning", "alone; h does not know this host"),
        (fleet.hub, replace(stands(**CUT), role="hub"), "failed", "cut off since 2026-09-21T12:50:00Z (1h)"),
        (fleet.hub, stands(alone=UNHEARD), "warning", "connected, but what it sends does not come back"),
        (fleet.hub, stands(alone=f"two machines are {AMS}"), "ok", "connected, all is reported"),
        (fleet.standby, replace(WELL, role="hub"), "ok", "the fleet has none, so that only a backup replaces this"),
        (
            fleet.standby,
            replace(stands(standbys=(("ams1", True),)), role="hub"),
            "ok",
            "ams1 can take this host's place",
        ),
        (fleet.standby, replace(stands(standbys=(("ams1", False),)), role="hub"), "warning", "ams1, a standby, is not"),
        (fleet.standby, replace(WELL, role="standby"), "ok", "this host is the standby, and has all"),
        (fleet.standby, replace(stands(behind=3), role="standby"), "warning", "lacks 3 changes of accounts"),
        (fleet.machines, stands(alone=UNHEARD), "ok", "no other machine"),
        (fleet.machines, stands(alone=f"two machines are {AMS}"), "failed", f"two machines are {AMS}: both refuse"),
        (fleet.machines, stands(alone=f"ams1 {TAKEN_OUT}"), "failed", "ams1 was taken out of the fleet"),
        (fleet.machines, stands(**CUT), "ok", "no other machine"),
        (fleet.clocks, skewed(2000, -2000), "ok", "2 other exits agree within 2 s"),
        (fleet.clocks, skewed(0, -2001), "warning", "differ from this host's: n1 by -2.0 s"),
        (fleet.clocks, skewed(0, 31_000), "failed", "n1 by +31.0 s"),
        (fleet.clocks, skewed(5000, 6000), "warning", "this host is 6.0 s behind all others"),
        (fleet.clocks, skewed(-400_000, -399_000), "failed", "this host is 400.0 s ahead of all others"),
        (fleet.clocks, skewed(5000), "warning", "n0 by +5.0 s"),
        (
            fleet.certificates,
            certified(-60 * DAY, 28 * DAY, renewed=True),
            "ok",
            "the hub's certificate is valid until",
        ),
        (fleet.certificates, certified(-63 * DAY, 27 * DAY, renewed=True), "warning", "was to be renewed by now"),
        (
            fleet.certificates,
            certified(-DAY, 29 * DAY, renewed=False),
            "warning",
            "the hub's certificate is valid until",
        ),
        (fleet.certificates, certified(-90 * DAY, 0, renewed=True), "failed", "was valid until 2026-09-21T14:20:00Z"),
        (
            fleet.certificates,
            certified(1000, DAY, renewed=True),
            "failed",
            "is valid from 2026-09-21T14:20:01Z on: this",
        ),
        (fleet.certificates, replace(WELL, certificates=None), "warning", "cannot be seen without root"),
        (fleet.port, replace(WELL, hub_port=HubPort(7422, ("nats-server",))), "ok", "nats-server listens on 7422/tcp"),
        (fleet.port, replace(WELL, hub_port=HubPort(7422, ())), "failed", "nothing listens on 7422/tcp"),
        (fleet.port, replace(WELL, hub_port=HubPort(7422, ("nginx",))), "failed", "nginx listens on 7422/tcp"),
        (fleet.nodes, stands(peers=(AMS1, replace(SIN1, fault="drained"))), "warning", "opened on sin1 (drained)"),
        (fleet.nodes, stands(**CUT), "warning", "not known"),
        (fleet.devices, stands(taken=(3, ("ada/pad", "ada/phone"))), "warning", "too: 3: ada/pad, ada/phone"),
        (fleet.devices, stands(taken=(1, ())), "warning", "has too: 1"),
        (fleet.conflicts, replace(WELL, conflicts=2), "warning", "that the fleet took back: 2"),
        (fleet.conflicts, replace(WELL, conflicts=None), "warning", "not known: the store cannot be read"),
    ],
)
def test_each_fault_is_named_with_what_mends_it(
    check: Callable[[FleetFacts], Finding], facts: FleetFacts, status: str, says: str
) -> None:
    """A fault is told by its facts; what is not ok has a command or an edit that mends it."""
    found = check(facts)
    assert found.status == status
    assert says in found.what
    assert bool(found.mend) == (status != "ok")


ROUTES = (("192.0.2.2:7423", True), ("192.0.2.3:7423", False))


@pytest.mark.parametrize(
    ("agreed", "routes", "status", "says"),
    [
        (None, (), "ok", "this host is not one of several hubs"),
        (True, (ROUTES[0], ROUTES[0]), "ok", "the other 2 hubs answer, and it is known which one leads"),
        (True, ROUTES, "warning", "192.0.2.3:7423 does not answer, where hubs dial each other"),
        (False, ROUTES, "failed", "no majority of the hubs says which one leads (192.0.2.3:7423 does not answer)"),
    ],
)
def test_hubs_reach_each_other(
    agreed: bool | None, routes: tuple[tuple[str, bool], ...], status: str, says: str
) -> None:
    """On the port beside that of the members; where too few do, accounts cannot be changed."""
    found = fleet.hubs(replace(stands(agreed=agreed), role="standby", routes=routes))
    assert found.status.value == status
    assert found.what.startswith(says)


def test_a_hub_that_is_away_has_a_standby() -> None:
    """It is named with the command that makes it the hub, whatever keeps this host from the hub."""
    for why in (None, "its nats-server lets this host in, and does not answer"):
        facts = stands(**CUT, standbys=(("ams1", True),), failure=why)
        assert fleet.hub(facts).mend.endswith(
            "if the hub is lost, wg-appliance fleet promote on ams1 makes that host the hub"
        )
        here = fleet.hub(replace(facts, role="standby")).mend
        assert here.endswith("if the hub is lost, wg-appliance fleet promote makes this host the hub")
    assert "promote" not in fleet.hub(stands(**CUT)).mend
    several = fleet.hub(stands(**CUT, standbys=(("ams1", True), ("sin1", True)))).mend
    assert "another of the hub, ams1, sin1 leads by itself while most are there" in several
    assert several.endswith("if they are lost, wg-appliance fleet promote on one that is left")


def test_the_facts_are_what_the_server_noted() -> None:
    """A note of a server that runs has all the facts but this host itself; an old one has none."""
    other = Presence(a_member(AMS, "ams1", "eu"), a_beat(AMS), True, 300, -50, "drained", asked=True)
    this = Presence(a_member(HERE, "here", "us"), a_beat(HERE), True, 0, 0, None, asked=True)
    tokens = KnownTokens(hold=True, until=AFTERNOON)
    status = fleet_status(
        [other, this],
        HERE,
        "cut off",
        LinkState(connected=False, since=at(-7000)),
        ReportState(unsent=4),
        tokens,
        at(0),
        TakenClaims(2, ("ada/phone",)),
    )
    noted = NotedStatus(status, at(0).wall_ms, at(0).boot_ms, at(0).boot_id)
    peers = (FleetPeer("ams1", True, "drained", -50),)
    assert standing(noted, at(9999)) == FleetStanding("cut off", AFTERNOON - 7000, 4, peers, taken=(2, ("ada/phone",)))
    assert standing(noted, at(10_000)) is None
    assert standing(None, at(0)) is None
