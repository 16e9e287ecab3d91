"""Two whole appliances, two regions, one API: real processes, a real nats-server, real wg-quick clients."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fleet.whole_fleet import WholeFleet, await_token, is_reported, whole_fleet
from tests.support.real_backend import NO_ROOT, backend_here
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import WEB, WEB6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.fleet.appliances import FleetAppliance

QUOTA = 50_000_000
LIMITED = {"tiers.paid": {"bytes_limit": QUOTA, "max_live_sessions": 2}}
BOTH = {"fsn1": ("hub", True), "ams1": ("spoke", True)}

pytestmark = pytest.mark.timeout(900)  # an emulated kernel takes minutes


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeFleet]:
    backend = backend_here()
    if backend is None:
        pytest.skip(NO_ROOT)
    with whole_fleet(backend, tmp_path_factory.mktemp("two"), fleet={"report": "1s"}, **LIMITED) as made:
        yield made


@pytest.fixture
def fleet(two: WholeFleet) -> Iterator[WholeFleet]:
    """Whole again afterwards, and without tunnels of clients."""
    yield two
    for client in two.clients:
        client.close()
    two.heal()


def test_each_exit_names_both_regions_and_both_exits(fleet: WholeFleet) -> None:
    for each in fleet.exits:
        answer = each.api("GET", "/v1/regions").body
        assert {region["code"]: region["node_count"] for region in answer["regions"]} == {"fsn": 1, "ams": 1}
        until(lambda each=each: _nodes(each) == BOTH, f"{each.name} shows both")  # type: ignore[misc]


def _nodes(exit_: FleetAppliance) -> dict[str, tuple[str, bool]]:
    """What `fleet status` says, which the server notes each second."""
    return {node["name"]: (node["role"], node["alive"]) for node in _status(exit_)["nodes"]}


def test_the_hub_knows_up_to_when_each_exit_has_reported(fleet: WholeFleet) -> None:
    """Of the spoke, too; the spoke knows its own lag alone."""
    hub, spoke = fleet.exits
    until(lambda: _status(hub)["complete_until"] is not None, "both have reported all")
    assert all(node["lag_s"] is not None for node in _status(hub)["nodes"])
    assert {node["name"]: node["lag_s"] is not None for node in _status(spoke)["nodes"]} == {
        hub.name: False,
        spoke.name: True,
    }
    assert _status(spoke)["complete_until"] is None


def _status(exit_: FleetAppliance) -> Any:
    return json.loads(exit_.admin("fleet", "status", "--json"))


def test_doctor_finds_the_fleet_whole(fleet: WholeFleet) -> None:
    """On the hub and on the spoke; none of it fails or warns."""
    for each in fleet.exits:
        said = json.loads(each.attempt("doctor", "--json").stdout)["checks"]
        of_fleet = {check["check"]: check["status"] for check in said if check["check"].startswith("fleet")}
        assert len(of_fleet) >= 5, said
        assert set(of_fleet.values()) == {"ok"}, [check for check in said if check["check"].startswith("fleet")]


@pytest.mark.long
def test_the_authority_is_replaced_while_both_go_on(fleet: WholeFleet) -> None:
    """The exit that follows is told of it, and says that it was; the hub's server has another certificate then."""
    hub, spoke = fleet.exits
    pids = hub.space.pids_of("nats-server")
    leaf = _file(hub, "hub/leaf.pem")
    hub.admin("fleet", "rotate-ca")
    until(lambda: _authorities(spoke) == _authorities(hub) == 2, "both trust both")
    until(lambda: _file(hub, "hub/leaf.pem") != leaf, "the new one signs")
    assert "another authority follows already" in hub.attempt("fleet", "rotate-ca").stderr
    assert f"is kept on {hub.name}" in spoke.attempt("fleet", "rotate-ca").stderr
    assert {_status(spoke)["cut_off_since"], _status(hub)["cut_off_since"]} == {None}
    assert hub.space.pids_of("nats-server") == pids


def _file(exit_: FleetAppliance, name: str) -> str:
    return (exit_.state / "fleet" / name).read_text(encoding="utf-8")


def _authorities(exit_: FleetAppliance) -> int:
    return int(json.loads(_file(exit_, "membership.json"))["ca"].count("BEGIN CERTIFICATE"))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("asked", [pytest.param(0, id="at the hub"), pytest.param(1, id="at the spoke")])
def test_one_token_opens_in_either_region_through_either_api(fleet: WholeFleet, asked: int) -> None:
    """Traffic leaves from the address of the region's exit; DELETE through the other API cuts at once."""
    api, other = fleet.exits[asked], fleet.exits[1 - asked]
    token = fleet.token()

    for exit_, client in zip(fleet.exits, fleet.clients, strict=True):
        opened = api.open(token, region=exit_.region)
        client.wg_quick(opened["wg_config"])
        assert opened["public_ip"] == exit_.host.ip
        assert (client.address_seen(), client.address_seen(WEB6)) == (exit_.host.ip, exit_.host.ip6)
        assert other.session(opened["id"], token)["region"] == exit_.region

        other.close(opened["id"], token)
        assert client.get(f"{WEB}/ip", seconds=2) == ""
        assert api.session(opened["id"], token)["terminated_at"]
        client.down()


def _live(exit_: FleetAppliance, token: str) -> Any:
    return exit_.api("GET", "/v1/sessions?live=true", token=token).body["sessions"]


def test_a_list_has_the_sessions_of_all_exits(fleet: WholeFleet) -> None:
    token = fleet.token("bob")
    ours = [fleet.hub.open(token, region=region)["id"] for region in ("fsn", "ams")]
    for each in fleet.exits:
        listed = each.api("GET", "/v1/sessions", token=token).body["sessions"]
        assert {session["id"] for session in listed} == set(ours)
    for session in ours:
        fleet.exits[1].close(session, token)


def test_a_file_does_not_show_which_api_made_it(fleet: WholeFleet) -> None:
    token = fleet.token()
    files = []
    for api in fleet.exits:
        opened = api.open(token, region="ams")
        files.append(_without_what_is_each_ones(opened["wg_config"]))
        api.close(opened["id"], token)
    assert files[0] == files[1]


def test_a_device_has_its_name_alone_in_the_fleet(fleet: WholeFleet) -> None:
    token = fleet.token("carol")
    for region, api, status in (("fsn", fleet.exits[1], 201), ("ams", fleet.exits[0], 409)):
        assert api.api("POST", "/v1/devices", {"region": region, "name": "laptop"}, token).status == status


def test_a_device_that_a_command_adds_is_served_by_every_api(fleet: WholeFleet) -> None:
    """Its id says whose it is; its name is its own for the hub's commands too."""
    hub, spoke = fleet.exits
    token = fleet.token("finn")
    spoke.admin("device", "add", "finn/phone")
    assert hub.attempt("device", "add", "finn/phone").stderr == (
        "wg-appliance: error: device name taken: finn has a device phone on another exit of the fleet\n"
    )
    (listed,) = hub.api("GET", "/v1/devices", token=token).body["devices"]
    assert hub.api("GET", f"/v1/devices/{listed['id']}", token=token).body["region"] == "ams"
    assert hub.api("DELETE", f"/v1/devices/{listed['id']}", token=token).body["state"] == "removed"


def test_a_revoked_token_holds_nowhere(fleet: WholeFleet, show: Callable[[str], None]) -> None:
    token = fleet.token("dora")
    listed = [t for t in json.loads(fleet.hub.admin("token", "list", "--json"))["tokens"] if t["account"] == "dora"]
    began = time.monotonic()
    fleet.hub.admin("token", "revoke", listed[0]["id"])
    for each in fleet.exits:
        await_token(each, token, status=401)
    show(f"refused by all {time.monotonic() - began:.1f} s after the command began")


def test_sessions_of_a_disabled_account_end_everywhere(fleet: WholeFleet, show: Callable[[str], None]) -> None:
    token = fleet.token("emil")
    opened = fleet.hub.open(token, region="ams")
    fleet.clients[0].wg_quick(opened["wg_config"])
    assert fleet.clients[0].address_seen() == fleet.exits[1].host.ip
    began = time.monotonic()
    fleet.hub.admin("account", "set", "emil", "--disabled")
    until(lambda: fleet.clients[0].get(f"{WEB}/ip", seconds=1) == "", "its tunnel carries nothing")
    show(f"ended {time.monotonic() - began:.1f} s after the command began")


def test_the_hubs_invoice_has_the_lines_of_both_exits(fleet: WholeFleet) -> None:
    """As each has billed them; the month is not over. The spoke makes none."""
    hub, spoke = fleet.exits
    ended = _paid_sessions(fleet, "hugo")
    month = ended[0]["terminated_at"][:7]
    books = json.loads(hub.admin("invoice", "hugo", "--month", month, "--json"))
    assert {line["exit"] for line in books["lines"]} == {hub.name, spoke.name}
    assert sorted((line["id"], line["bytes_in"], line["bytes_out"]) for line in books["lines"]) == sorted(
        (each["id"], each["bytes_in"], each["bytes_out"]) for each in ended
    )
    assert books["complete"] is False
    assert f"invoices are made on {hub.name}" in spoke.attempt("invoice", "hugo", "--month", month).stderr


@pytest.mark.long
def test_the_spoke_compares_its_lines_with_the_hubs(fleet: WholeFleet) -> None:
    """The hub's server asks it, within seconds: all is the same, and after a change by hand it is not."""
    hub, spoke = fleet.exits
    ended = _paid_sessions(fleet, "ines")
    asked = ("invoice", "ines", "--month", ended[0]["terminated_at"][:7], "--verify")
    assert hub.attempt(*asked).stderr.splitlines()[0] == f"verified: the lines are those of {spoke.name}"
    with closing(sqlite3.connect(hub.store)) as db, db:
        db.execute("UPDATE fleet_lines SET seconds = seconds + 1 WHERE session_id = ?", (ended[1]["id"],))
    refused = hub.attempt(*asked)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"{spoke.name}: 1 line differs from what the hub has: {ended[1]['id']}" in refused.stderr


def _paid_sessions(fleet: WholeFleet, account: str) -> list[Any]:
    """Sessions of a paid account on the hub and on the spoke, which ended and were told."""
    hub, spoke = fleet.exits
    token = fleet.token(account)
    hub.admin("account", "set", account, "--tier", "paid")
    until(lambda: spoke.api("GET", "/v1/usage", token=token).body["tier"] == "paid", "the spoke knows it")
    opened = [hub.open(token, region=region) for region in ("fsn", "ams")]
    for client, each in zip(fleet.clients, opened, strict=True):
        client.wg_quick(each["wg_config"])
        assert client.address_seen()
    until(lambda: all(hub.session(each["id"], token)["bytes_in"] for each in opened), "both are counted")
    for client, each in zip(fleet.clients, opened, strict=True):
        client.down()
        hub.close(each["id"], token)
    ended = [hub.session(each["id"], token) for each in opened]
    month = ended[0]["terminated_at"][:7]

    def lines() -> list[Any]:
        return list(json.loads(hub.admin("invoice", account, "--month", month, "--json"))["lines"])

    until(lambda: [bool(line["end"]) for line in lines()] == [True, True], "both have told that they ended")
    return ended


def test_an_exit_that_is_cut_off_goes_on(fleet: WholeFleet) -> None:
    """Its clients and its API do; the others answer for it what they know, and name no region that is away."""
    hub, spoke = fleet.exits
    client = fleet.clients[0]
    token = fleet.token()
    opened = hub.open(token, region="ams")
    client.wg_quick(opened["wg_config"])
    assert client.address_seen() == spoke.host.ip
    until(lambda: spoke.session(opened["id"], token)["bytes_in"], "it is counted")
    until(lambda: is_reported(spoke, opened["id"]), "the hub was told of it")

    fleet.world.cut(hub.host, spoke.host)
    until(lambda: hub.regions() == {"fsn"} and spoke.regions() == {"ams"}, "each names its own region alone")
    refused = hub.api("POST", "/v1/sessions", {"region": "ams"}, token)
    assert (refused.status, refused.body["available"]) == (503, ["fsn"])
    assert "terminated_at" not in hub.session(opened["id"], token)
    assert hub.api("DELETE", f"/v1/sessions/{opened['id']}", token=token).status == 503
    assert client.get(f"{WEB}/ip", seconds=10) == spoke.host.ip
    assert spoke.api("GET", "/readyz").status == 200
    here = spoke.open(token)
    spoke.close(here["id"], token)
    said = _meanwhile(spoke)
    spoke.configure(fleet={"offline_tokens": "2h"})
    spoke.reload()
    until(lambda: _meanwhile(spoke) != said, "what it may do while it is cut off is another thing after SIGHUP")

    fleet.heal()
    until(lambda: "terminated_at" in hub.session(opened["id"], token), "the DELETE is carried out")
    until(lambda: _same(hub.session(opened["id"], token), spoke.session(opened["id"], token)), "both say the same")


def test_a_hubs_server_that_is_killed_comes_back(fleet: WholeFleet) -> None:
    """Tunnels go on meanwhile; the exits find each other again, and what has moved is known to both."""
    hub, spoke = fleet.exits
    client, token = fleet.clients[0], fleet.token("gina")
    opened = hub.open(token, region="ams")
    client.wg_quick(opened["wg_config"])
    assert client.address_seen() == spoke.host.ip
    (before,) = hub.space.pids_of("nats-server")
    os.kill(before, signal.SIGKILL)
    assert client.get(f"{WEB}/ip", seconds=10) == spoke.host.ip
    until(lambda: set(hub.space.pids_of("nats-server")) - {before}, "it is started again")
    fleet.heal()
    client.download(100_000, "killed")
    until(lambda: spoke.session(opened["id"], token)["bytes_out"] > 100_000, "it is counted")
    hub.close(opened["id"], token)
    until(lambda: _same(hub.session(opened["id"], token), spoke.session(opened["id"], token)), "both say the same")


def _meanwhile(exit_: FleetAppliance) -> list[str]:
    noted = json.loads((exit_.state / "fleet" / "status.json").read_text(encoding="utf-8"))
    return list(noted["status"]["meanwhile"])


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["bytes_in"], one["bytes_out"]) == (other["bytes_in"], other["bytes_out"])


def _without_what_is_each_ones(config: str) -> list[str]:
    own = ("PrivateKey", "# PublicKey", "Address")
    return [line for line in config.splitlines() if not line.startswith(own)]


@pytest.mark.long
def test_a_session_that_ends_here_leaves_room_there_at_once(fleet: WholeFleet, show: Callable[[str], None]) -> None:
    """The account may have two sessions, and has one all the time."""
    fleet.hub.admin("account", "create", "mona", "--tier", "paid")
    token, took = fleet.token("mona"), list[float]()
    fleet.hub.open(token)
    for number in range(20):
        exit_ = fleet.exits[number % 2]
        began = time.monotonic()
        session = exit_.open(token, region=exit_.region)["id"]
        took.append(time.monotonic() - began)
        assert exit_.api("DELETE", f"/v1/sessions/{session}", token=token).status == 200
    show(f"opened at once elsewhere in {sorted(took)[10]:.2f} s, at most {max(took):.2f} s")


@pytest.mark.long
@pytest.mark.usefixtures("backend")
def test_a_quota_used_on_both_exits_ends_sessions_on_both(fleet: WholeFleet, show: Callable[[str], None]) -> None:
    """As soon as both together have used it, but for what moves in a look; the usage is one on both."""
    hub = fleet.hub
    hub.admin("account", "create", "ursula", "--tier", "paid")
    token = fleet.token("ursula")
    opened = [each.open(token, region=each.region)["wg_config"] for each in fleet.exits]
    for client, config in zip(fleet.clients, opened, strict=True):
        client.wg_quick(config)
        client.start_download(QUOTA, "half")
    for each in fleet.exits:
        until(
            lambda each=each: each.api("POST", "/v1/sessions", {"region": each.region}, token).status == 402,  # type: ignore[misc]
            f"{each.name} refuses another session",
        )
        until(lambda each=each: not _live(each, token), f"no session lives on {each.name}")  # type: ignore[misc]
    used = [each.api("GET", "/v1/usage", token=token).body["bytes_used"] for each in fleet.exits]
    show(f"of {QUOTA / 1e6:g} MB, two exits moved {used[0] / 1e6:.1f} MB")
    assert used[0] == used[1]
    assert used[0] <= 1.5 * QUOTA  # a look of a fast machine on each
    for each in fleet.exits:
        # The hub's command goes by what exits have reported.
        until(lambda each=each: f"{used[0]}" in each.admin("usage", "ursula", "--json"), f"{each.name} says so")  # type: ignore[misc]
