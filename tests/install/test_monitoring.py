"""The alert rules and the dashboard of systemd/monitoring, with a Prometheus that watches an installed appliance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.install.installed import SERVICE, first_token
from tests.support.tunnel.client import CURL
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.install.installed import Installed

MONITORING = Path(__file__).parents[2] / "systemd" / "monitoring"
RULES, DASHBOARD = "prometheus-rules.yml", "grafana-dashboard.json"
# As the remark in the rules says, and quicker.
CONFIG = f"""\
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: [{RULES}]
scrape_configs:
  - job_name: wg-appliance
    static_configs: [{{ targets: ["127.0.0.1:9586"] }}]
"""
# What Grafana puts in.
VARIABLES = {"$instance": ".*", "$__rate_interval": "10s"}
# Of what had not happened here, there is no series yet.
MAY_BE_EMPTY = ("wg_appliance_task_crashes_total",)


class Prometheus:
    """Debian's, in the machine, and its HTTP API."""

    def __init__(self, appliance: Installed) -> None:
        self._space = appliance.space
        self._machine = appliance.machine
        self._machine.run("apt-get", "install", "--yes", "--no-install-recommends", "prometheus")
        folder = self._machine.root / "etc/prometheus"
        (folder / RULES).write_bytes((MONITORING / RULES).read_bytes())
        (folder / "prometheus.yml").write_text(CONFIG, encoding="utf-8")
        self._machine.run("promtool", "check", "config", "/etc/prometheus/prometheus.yml")
        self._machine.run("systemctl", "restart", "prometheus")

    def query(self, expression: str) -> list[Any]:
        found: list[Any] = self._get("query", "--get", "--data-urlencode", f"query={expression}")["result"]
        return found

    def rules(self) -> dict[str, Any]:
        return {rule["name"]: rule for group in self._get("rules")["groups"] for rule in group["rules"]}

    def answers(self) -> bool:
        return self._space.run(*CURL, "--fail", "http://127.0.0.1:9090/-/ready", check=False).returncode == 0

    def _get(self, path: str, *options: str) -> Any:
        answer = json.loads(self._space.run(*CURL, *options, f"http://127.0.0.1:9090/api/v1/{path}").stdout)
        assert answer["status"] == "success", answer
        return answer["data"]


def dashboard_queries() -> Iterator[str]:
    for panel in json.loads((MONITORING / DASHBOARD).read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_monitoring(appliance: Installed, program: Path) -> None:
    """Prometheus takes the rules; every panel shows something of an exit in use, and one that is gone is noticed."""
    machine = appliance.machine
    appliance.count_often()
    token = first_token(appliance.install(appliance.bring(program)))
    prometheus = Prometheus(appliance)
    until(prometheus.answers, "Prometheus answers")
    metrics = machine.space.run(*CURL, "http://127.0.0.1:9586/metrics").stdout
    (machine.root / "root/metrics").write_text(metrics, encoding="utf-8")
    machine.run("sh", "-c", "promtool check metrics </root/metrics")

    for expression in map(filled_in, dashboard_queries()):
        if any(name in expression for name in MAY_BE_EMPTY):
            prometheus.query(expression)
        else:
            until(lambda expression=expression: prometheus.query(expression), f"{expression} has a result")
    appliance.open(token)
    until(lambda: all(rule["health"] == "ok" for rule in prometheus.rules().values()), "all rules were evaluated")
    assert [name for name, rule in prometheus.rules().items() if rule["state"] == "firing"] == []
    machine.run("systemctl", "stop", SERVICE)
    until(lambda: prometheus.rules()["ExitDown"]["state"] != "inactive", "it is noticed")


def filled_in(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression
