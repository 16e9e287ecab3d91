"""How the fleet stands, as commands and Prometheus are told."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest

from appliance.domain.errors import ConnectFailed
from appliance.fleet.link.connect_failure import Hindrance
from appliance.fleet.link.link import LinkState
from appliance.fleet.presence.directory import Presence
from appliance.fleet.status import status_file
from appliance.fleet.status.collector import FleetCollector, FleetCounts, rpc_seconds
from appliance.fleet.status.status import (
    HEADINGS,
    SPARE,
    KnownHubs,
    KnownTokens,
    ReportState,
    fields,
    fleet_status,
    rows,
)
from appliance.fleet.status.status_file import NotedStatus, StatusNotes
from tests.support.fleet.members import AMS, HERE, SIN, a_beat, a_member, at
from tests.support.virtual_clock import AFTERNOON, VirtualClock

if TYPE_CHECKING:
    from appliance.domain.clock import Moment
    from appliance.fleet.status.status import FleetStatus

MONITORING = Path(__file__).parents[2] / "systemd" / "monitoring"
HOLD = KnownTokens(hold=True, until=AFTERNOON + 3600_000)
NEVER_HEARD = Presence(a_member(SIN, "sin1", "as"), None, False, None, None, "not heard yet", asked=False)


def presences(role: str = "spoke") -> list[Presence]:
    here = replace(a_member(HERE, "here", "us"), role=role)
    return [
        Presence(a_member(AMS, "ams1", "eu"), a_beat(AMS, live=7), True, 300, -2500, None, asked=True),
        Presence(here, a_beat(HERE, region="us", gen=4), True, 0, 0, "drained", asked=True),
        NEVER_HEARD,
    ]


def a_status(
    report: ReportState | None = None, since: Moment | None = None, tokens: KnownTokens = HOLD, role: str = "spoke"
) -> FleetStatus:
    link = LinkState(connected=True, since=at(-500_000), hub="192.0.2.9:7422")
    if since is not None:
        link = LinkState(connected=False, since=since, failure=ConnectFailed(Hindrance.REFUSED, "port 7422 is closed"))
    return fleet_status(
        presences(role), HERE, None if link.connected else "cut off", link, report or ReportState(), tokens, at(0)
    )


def test_the_record_says_what_is_known_of_each_exit() -> None:
    """Each exit has its place, state, lag and skew; null stands for what this host does not know."""
    found = msgspec.to_builtins(a_status(ReportState(told_until={AMS: AFTERNOON - 90_500})))
    names = ("name", "region", "role", "alive", "fault", "lag_s", "skew_ms", "live", "version")
    assert [tuple(node[name] for name in names) for node in found["nodes"]] == [
        ("ams1", "eu", "spoke", True, None, 90, -2500, 7, "1.0"),
        ("here", "us", "spoke", True, "drained", 0, 0, 0, "1.0"),
        ("sin1", "as", "spoke", False, "not heard yet", None, None, None, None),
    ]
    assert [node["id"] for node in found["nodes"]] == [AMS, HERE, SIN]
    assert {name: found[name] for name in ("generation", "quorum", "complete_until", "cut_off_since", "this")} == {
        "generation": 4,
        "quorum": True,
        "complete_until": None,
        "cut_off_since": None,
        "this": HERE,
    }


@pytest.mark.parametrize(("role", "gen", "behind"), [("standby", 4, 3), ("hub", 4, 0), ("standby", 5, 0)])
def test_what_others_have_told_of_is_compared(role: str, gen: int, behind: int) -> None:
    """Of the same generation alone; a hub has all by definition."""
    here = replace(a_member(HERE, "here", "us"), role=role)
    known = [
        Presence(a_member(AMS, "ams1", "eu"), a_beat(AMS, gen=4, acc_rev=12), False, 9000, 0, "silent", asked=False),
        Presence(here, a_beat(HERE, gen=gen, acc_rev=9), True, 0, 0, None, asked=True),
        NEVER_HEARD,
    ]
    found = fleet_status(known, HERE, None, LinkState(connected=True, since=at(0)), ReportState(), HOLD, at(0))
    assert found.behind == behind
    told = dict(fields(found)).get("accounts")
    assert told == (f"{behind} changes are told of that this host does not have yet" if behind else None)


def test_it_is_complete_until_the_exit_that_lags_most() -> None:
    """Up to then every exit has reported everything; while one has never, it is not complete at all. One that has left
    does not count, nor does what a clock that is ahead says of moments to come."""
    told = {AMS: AFTERNOON - 60_000, HERE: AFTERNOON, SIN: AFTERNOON - 600_000}
    found = a_status(ReportState(told_until=told))
    assert found.complete_until == "2026-09-21T14:10:00Z"
    assert [each.lag_s for each in found.nodes] == [60, 0, 600]
    left = dict.fromkeys(told, AFTERNOON + 60_000) | {"nod_of_one_that_left": AFTERNOON - 900_000}
    found = a_status(ReportState(told_until=left))
    assert found.complete_until == "2026-09-21T14:20:00Z"
    assert {each.lag_s for each in found.nodes} == {0}
    del told[SIN]
    assert a_status(ReportState(told_until=told)).complete_until is None


@pytest.mark.parametrize(
    ("tokens", "role", "sentence"),
    [
        (HOLD, "spoke", "tokens that are known here open sessions on this exit until 2026-09-21T15:20:00Z, others do"),
        (KnownTokens(hold=False, until=AFTERNOON), "spoke", "no token opens a session here since 2026-09-21T14:20:00Z"),
        (KnownTokens(hold=False, until=None), "spoke", "no token opens a session here: this exit has not had the fl"),
        (HOLD, "hub", "accounts and tokens are kept here, and work here as ever"),
    ],
)
def test_what_holds_while_cut_off_is_said(tokens: KnownTokens, role: str, sentence: str) -> None:
    """Cut off: since when, what is not reported yet, and what the rules allow meanwhile; by the host's role."""
    report = ReportState(unsent=12, waiting_since=AFTERNOON - 300_000)
    found = a_status(report, at(-300_000), tokens, role)
    assert (found.quorum, found.cut_off_since) == (False, "2026-09-21T14:15:00Z")
    assert found.meanwhile[0].startswith(sentence)
    shown = fields(found)
    assert shown[:4] == [
        ("this host", f"here, {role} in us, {HERE}"),
        ("hub", "cut off since 2026-09-21T14:15:00Z"),
        ("", "port 7422 is closed"),
        ("", found.meanwhile[0]),
    ]
    assert shown[-3:] == [
        ("takes no sessions", "drained"),
        ("not reported yet", "12 sessions, the first for 5m"),
        ("generation", "4"),
    ]


def test_people_see_a_row_for_each_exit() -> None:
    """Connected, nothing is said of what holds meanwhile; what is not known is a dash."""
    names = ["this host", "hub", "takes no sessions", "not reported yet", "generation"]
    assert [name for name, _ in fields(a_status())] == names
    double = replace(a_status(), alone=f"two machines are {HERE}")
    assert fields(double)[1:3] == [("hub", "connected"), ("works alone", f"two machines are {HERE}")]
    found = rows(a_status(ReportState(told_until={AMS: AFTERNOON - 90_500})))
    assert found == [
        ("ams1", "eu", "spoke", "takes sessions", "7", "1m", "-2.5 s", "1.0"),
        ("here", "us", "spoke", "drained", "0", "0s", "+0.0 s", "1.0"),
        ("sin1", "as", "spoke", "not heard yet", "-", "-", "-", "-"),
    ]
    assert {len(row) for row in found} == {len(HEADINGS)}
    assert set(SPARE) < set(HEADINGS)


def test_a_clock_that_differs_by_less_than_shown_is_not_behind() -> None:
    status = a_status()
    nearly = msgspec.structs.replace(status, nodes=(msgspec.structs.replace(status.nodes[0], skew_ms=-1),))
    assert rows(nearly)[0][6] == "+0.0 s"


# The note for commands -------------------------------------------------------------------------------


def test_a_command_reads_what_the_server_has_noted(tmp_path: Path) -> None:
    """The note has the status and its moment; it is fresh for ten seconds of the same boot, and gone after a stop."""
    file, clock = tmp_path / "status.json", VirtualClock()

    async def story() -> NotedStatus | None:
        notes, stopping = StatusNotes(file, a_status, clock), asyncio.Event()
        await notes.note()
        found = status_file.read(file)
        stopping.set()
        async with asyncio.timeout(60):
            await notes.run(stopping)
        return found

    found = asyncio.run(story())
    assert found is not None
    assert found.status == a_status()
    assert list(tmp_path.iterdir()) == []
    clock.advance(9)
    assert found.is_fresh(clock.now())
    clock.advance(1)
    assert not found.is_fresh(clock.now())
    clock.reboot()
    assert not found.is_fresh(clock.now())


@pytest.mark.parametrize("content", ["", "[]", '{"status": {}}', "{", '{"status": 1, "wall_ms": "x"}'])
def test_what_is_no_note_is_none(tmp_path: Path, content: str) -> None:
    """A missing, torn or strange file is no note."""
    file = tmp_path / "status.json"
    assert status_file.read(file) is None
    file.write_text(content, encoding="utf-8")
    assert status_file.read(file) is None


def test_a_note_that_cannot_be_written_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The server goes on, and says it once each time it begins."""
    folder = tmp_path / "fleet"
    notes = StatusNotes(folder / "status.json", a_status, VirtualClock())

    async def story() -> None:
        for _ in range(2):
            await notes.note()
            await notes.note()
            folder.mkdir()
            await notes.note()
            (folder / "status.json").unlink()
            folder.rmdir()

    asyncio.run(story())
    assert len(caplog.messages) == 2
    assert "cannot note how the fleet stands" in caplog.text


# Prometheus ------------------------------------------------------------------------------------------


def exposed(status: FleetStatus) -> str:
    """What Prometheus reads of a fleet, with one answer of each kind that is counted."""
    registry = CollectorRegistry()
    rpc = rpc_seconds()
    rpc.labels("open").observe(0.2)
    counts = FleetCounts(dropped={"late": 2}, resent=lambda: 7, denied=lambda: 1, rpc=rpc)
    registry.register(FleetCollector(lambda: status, counts))
    return generate_latest(registry).decode()


@pytest.mark.parametrize("name", ["grafana-fleet.json", "prometheus-rules.yml"])
def test_examples_ask_for_what_a_fleet_has(name: str) -> None:
    """Every metric of a fleet that the dashboard and the alerts name is one that an exit of a fleet exposes."""
    asked = set(re.findall(r"\bwg_appliance_fleet_\w+", (MONITORING / name).read_text(encoding="utf-8")))
    assert len(asked) > 5
    assert asked - {line.partition("{")[0].partition(" ")[0] for line in exposed(a_status()).splitlines()} == set()


def test_metrics_of_presence() -> None:
    """Whether a hub is reached, which exits are heard, what waits to be reported, and what is counted."""
    report = ReportState(unsent=3, waiting_since=AFTERNOON - 42_000)
    lines = {line for line in exposed(a_status(report, at(-1))).splitlines() if not line.startswith("#")}
    lines = {line for line in lines if "_bucket" not in line and "_created" not in line}
    assert lines == {
        "wg_appliance_fleet_connected 0.0",
        "wg_appliance_fleet_quorum 0.0",
        'wg_appliance_fleet_node_alive{node="ams1"} 1.0',
        'wg_appliance_fleet_node_alive{node="here"} 1.0',
        'wg_appliance_fleet_node_alive{node="sin1"} 0.0',
        "wg_appliance_fleet_lag_seconds 42.0",
        "wg_appliance_fleet_unsent_sessions 3.0",
        'wg_appliance_fleet_beats_dropped_total{reason="late"} 2.0',
        'wg_appliance_fleet_beats_dropped_total{reason="malformed"} 0.0',
        'wg_appliance_fleet_beats_dropped_total{reason="stranger"} 0.0',
        "wg_appliance_fleet_resent_total 7.0",
        "wg_appliance_fleet_lease_denied_total 1.0",
        'wg_appliance_fleet_rpc_seconds_count{operation="open"} 1.0',
        'wg_appliance_fleet_rpc_seconds_sum{operation="open"} 0.2',
    }


@pytest.mark.parametrize(
    ("hubs", "quorum", "says"),
    [
        (KnownHubs(), True, None),
        (KnownHubs(since=7), True, "here: one of them leads, and no other may be lost"),
        (KnownHubs(since=7, agreed=False), False, "here: no majority of them says which one leads"),
    ],
)
def test_what_is_said_of_several_hubs(hubs: KnownHubs, quorum: bool, says: str | None) -> None:
    """Where no majority of them is there, nothing can be changed for certain."""
    link = LinkState(connected=True, since=at(0), hub="192.0.2.9:7422")
    known = KnownHubs(hubs.since, hubs.agreed, {AMS: "192.0.2.2:7422", SIN: ""})
    found = fleet_status(presences("hub"), HERE, None, link, ReportState(), HOLD, at(0), hubs=known)
    assert (found.quorum, found.hubs_since) == (quorum, hubs.since)
    assert {each.id: each.dialled for each in found.nodes} == {AMS: "192.0.2.2:7422", HERE: None, SIN: ""}
    line = dict(fields(found)).get("hubs")
    assert line is None if says is None else line is not None and line.startswith(says)
