"""/metrics: what happens shows in it, under names that stay, with labels that clients cannot multiply."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from litestar.testing import TestClient
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.parser import text_string_to_metric_families

from appliance.domain.entities import Reason
from appliance.domain.errors import TunnelError
from appliance.domain.tiers import Tier
from appliance.network.firewall import conntrack_size
from appliance.network.firewall.state import EgressChanges
from appliance.network.reconcile import Changes
from appliance.network.wireguard.tunnel import Peer, PutPeer
from appliance.server.api.metrics import create_metrics_app
from appliance.server.conntrack_metrics import ConntrackCollector
from appliance.server.exporter import ExitCollector
from appliance.sessions.contentions import Contentions
from appliance.sessions.convergence import Convergence
from appliance.sessions.metrics import Metrics
from tests.support.api.a_device import a_device
from tests.support.api.exit_under_test import UNHURRIED, on_exit
from tests.support.fixed_host import FixedHost

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.api.exit_under_test import ExitUnderTest

MONITORING = Path(__file__).parents[2] / "systemd" / "monitoring"


def exposed(exit_: ExitUnderTest) -> dict[str, float]:
    """Every sample as Prometheus would read it, by name{label=value}."""
    registry = exit_.metrics.registry
    collector = ExitCollector(exit_.parts, exit_.tunnel, {"the tick": 0})
    registry.register(collector)
    try:
        text = generate_latest(registry).decode()
    finally:
        registry.unregister(collector)
    return {
        sample.name + (json.dumps(sample.labels) if sample.labels else ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def sample(name: str, **labels: str) -> str:
    return f"wg_appliance_{name}" + (json.dumps(labels) if labels else "")


@on_exit()
async def test_sessions_are_counted_by_tier_and_reason(exit_: ExitUnderTest) -> None:
    """Opened by tier, ended by reason, live; addresses taken and free; before the first one all are there, at zero."""
    first = exposed(exit_)
    for tier in Tier:
        assert first[sample("sessions_opened_total", tier=tier)] == 0
    for reason in Reason:
        assert first[sample("sessions_terminated_total", reason=reason)] == 0
    ada = await exit_.client("ada", Tier.FREE)
    first_session, _ = await ada.open(), await ada.open()
    await ada.delete(first_session["id"])
    found = exposed(exit_)
    assert found[sample("sessions_opened_total", tier="free")] == 2
    assert found[sample("sessions_terminated_total", reason="closed")] == 1
    assert found[sample("sessions_live", tier="free")] == 1
    assert found[sample("addresses_used")] == 1
    assert found[sample("addresses_free")] == found[sample("addresses")] - 1


@on_exit()
async def test_devices_are_counted_by_state(exit_: ExitUnderTest) -> None:
    """Each as the API says it is, and the sessions that their handshakes have opened; all states are there at zero."""
    first = exposed(exit_)
    assert devices(first) == {"idle": 0, "connected": 0, "paused": 0, "held": 0}
    assert first[sample("device_sessions_opened_total")] == 0
    ada, bob = await exit_.account(), await exit_.account("bob")
    phone, laptop = await a_device(exit_, ada, 9, "phone"), await a_device(exit_, ada, 10, "laptop")
    await a_device(exit_, ada, 11, "tablet")
    await a_device(exit_, bob, 12)
    await phone.shakes()
    await exit_.admin("UPDATE devices SET paused = 1 WHERE id = ?", laptop.id)
    await exit_.tick()
    assert devices(exposed(exit_)) == {"idle": 2, "connected": 1, "paused": 1, "held": 0}
    await exit_.admin("UPDATE node SET drained = 1")
    await exit_.tick()
    assert devices(exposed(exit_)) == {"idle": 0, "connected": 1, "paused": 1, "held": 2}
    await exit_.admin("UPDATE accounts SET disabled = 1 WHERE id = ?", ada.id)
    await exit_.tick()
    await exit_.tick()
    found = exposed(exit_)
    assert devices(found) == {"idle": 0, "connected": 0, "paused": 0, "held": 4}
    assert found[sample("device_sessions_opened_total")] == 1


def devices(found: Mapping[str, float]) -> dict[str, float]:
    """Of a scrape, by state."""
    return {state: found[sample("devices", state=state)] for state in ("idle", "connected", "paused", "held")}


@on_exit()
async def test_repairs_are_counted_by_kind(exit_: ExitUnderTest) -> None:
    """By kind, each difference once; what could not be put right is none."""
    before = exposed(exit_)
    ada = await exit_.client()
    await ada.post()
    (key,) = exit_.tunnel.peers
    strangers = [PutPeer(Peer(bytes([n]) * 32, frozenset())) for n in (1, 2, 3)]
    exit_.tunnel.interface.peers.pop(key)
    await exit_.tunnel.apply(strangers)
    await exit_.tick()
    exit_.egress.fault = "no nft"
    await exit_.tick()
    found = exposed(exit_)

    def more(kind: str) -> float:
        name = sample("repairs_total", kind=kind)
        return found[name] - before[name]

    assert {kind: more(kind) for kind in ("peer_restored", "peer_removed", "peer_changed", "firewall", "device")} == {
        "peer_restored": 1,
        "peer_removed": 3,
        "peer_changed": 0,
        "firewall": 0,
        "device": 0,
    }


@on_exit()
async def test_repairs_of_table_and_sysctls_are_counted(exit_: ExitUnderTest) -> None:
    """The table is one, each sysctl counts."""
    before = exposed(exit_)
    changes = Changes(egress=EgressChanges(rules=True, sysctls={"a": "1", "b": "0"}))
    contentions = Contentions(exit_.metrics)
    convergence = Convergence(
        exit_.tunnel,
        exit_.egress,
        exit_.parts.live,
        exit_.parts.records.devices,
        None,  # type: ignore[arg-type]  # no exit is asked for
        exit_.metrics,
        FixedHost(),
        contentions,
    )
    await convergence.apply(changes)
    found = exposed(exit_)
    assert found[sample("repairs_total", kind="sysctl")] - before[sample("repairs_total", kind="sysctl")] == 2
    assert found[sample("repairs_total", kind="firewall")] - before[sample("repairs_total", kind="firewall")] == 1


@on_exit()
async def test_ticks_are_timed_by_kind(exit_: ExitUnderTest) -> None:
    """Their durations by kind, and those that failed."""
    before = exposed(exit_)
    await exit_.tick()
    exit_.tunnel.fail_next(TunnelError("gone"))
    await exit_.tick()
    await exit_.parts.ticker.tick(whole=False)
    found = exposed(exit_)
    whole, look = (sample("tick_duration_seconds_count", kind=kind) for kind in ("whole", "look"))
    assert found[whole] - before[whole] == 3  # while it does not work, every tick is whole
    assert found.get(look, 0) == 0
    assert found[sample("ticks_failed_total")] == 1
    await exit_.parts.ticker.tick(whole=False)
    assert exposed(exit_)[look] == 1


@on_exit(UNHURRIED)
async def test_answers_are_counted_by_route(exit_: ExitUnderTest) -> None:
    """By the route as it is declared, whatever ids, paths and methods clients send: the series stay few."""
    ada = await exit_.client()
    session = (await ada.open())["id"]
    for path in (f"/v1/sessions/{session}", "/v1/sessions/ses_none", *(f"/x{n}" for n in range(50)), "/v1/%0a"):
        await ada.get(path)
    for n in range(50):
        await exit_.http.request(f"M{n}", "/healthz")
    await exit_.http.get("/healthz")
    name = sample("http_request_duration_seconds_count")
    counts = {each: value for each, value in exposed(exit_).items() if each.startswith(name)}

    def many(method: str, route: str, status: str) -> float:
        return counts[sample("http_request_duration_seconds_count", method=method, route=route, status=status)]

    assert many("POST", "/v1/sessions", "201") == 1
    assert many("GET", "/v1/sessions/{session_id}", "200") == 1
    assert many("GET", "/v1/sessions/{session_id}", "404") == 1
    assert many("GET", "other", "404") == 51
    assert many("other", "other", "405") == 50
    assert many("GET", "/healthz", "200") == 1
    assert len(counts) == 6


@on_exit()
async def test_the_stores_work_and_failures_are_counted(exit_: ExitUnderTest) -> None:
    """Readings and transactions, and what the store could not serve."""
    before = exposed(exit_)
    ada = await exit_.client()
    with exit_.locked():
        assert (await ada.post()).status_code == 503
        await exit_.parts.queue.settled()
    found = exposed(exit_)
    for operation in ("read", "write"):
        name = sample("store_duration_seconds_count", operation=operation)
        assert found[name] > before[name]
    # The session could not be stored, and what there may be of it not be undone.
    assert found[sample("store_failures_total")] - before[sample("store_failures_total")] == 2


@on_exit()
async def test_build_and_dumps(exit_: ExitUnderTest) -> None:
    """What runs, and how often the device had to be read again."""
    exit_.tunnel.dump_retries = 7
    found = exposed(exit_)
    (build,) = [name for name in found if name.startswith(sample("build_info"))]
    assert re.search(r'"version": "\d', build)
    assert '"backend": "' in build
    assert found[sample("dump_retries_total")] == 7


@on_exit()
async def test_metrics_are_named_as_is_usual(exit_: ExitUnderTest) -> None:
    """Counters end in _total, durations are in seconds, and nothing is named otherwise."""
    await (await exit_.client()).open()
    for name in (each.partition("{")[0] for each in exposed(exit_)):
        assert re.fullmatch(r"wg_appliance(_[a-z]+)+", name), name
        assert "_ms" not in name


def tracking_host(folder: Path) -> ConntrackCollector:
    """Of a host that tracks connections, with its /proc in this folder."""
    for sysctl in (conntrack_size.COUNT, conntrack_size.MAX, conntrack_size.BUCKETS):
        file = folder / "sys" / sysctl
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("65536\n", encoding="ascii")
    return ConntrackCollector(folder)


def queried(file: Path) -> Iterator[str]:
    """Metric names in a dashboard's or a rule's queries."""
    yield from re.findall(r"\bwg_appliance_\w+", file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["grafana-dashboard.json", "grafana-fleet.json", "prometheus-rules.yml"])
@on_exit()
async def test_examples_ask_for_what_there_is(
    exit_: ExitUnderTest, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every metric that the dashboards and the alerts name is one that a used exit exposes, but for a fleet's."""
    exit_.metrics.registry.register(tracking_host(tmp_path_factory.mktemp("proc")))
    await (await exit_.client()).open()
    await exit_.tick()
    names = {each.partition("{")[0] for each in exposed(exit_)}
    asked = {each for each in queried(MONITORING / name) if not each.startswith("wg_appliance_fleet_")}
    assert len(asked) > 1
    assert asked - names == set()


def test_the_type_of_the_exposition_is_said_once() -> None:
    """Prometheus reads the version and the charset of the text off one header, in which each stands once."""
    with TestClient(create_metrics_app(Metrics().registry)) as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers.get_list("content-type") == [CONTENT_TYPE_LATEST]
    assert answer.text.startswith("# HELP ")
