"""Imports go one way: each room of `appliance/` imports from itself and from the rooms below it."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parents[2]

# From high to low. A module that stands in no room (the package itself, __main__,
# the C extension) is listed beside them.
ROOMS = (
    "cli",  # one file a command
    "server",  # the running service: API, HTTP, pages, what watches over it
    "fleet",  # several exits behind one API
    "sessions",  # opening, ending, the ticker, convergence
    "metering",  # bytes and seconds of sessions
    "ops",  # install, doctor, selftest, backup
    "client",  # `connect`
    "store",  # SQLite
    "network",  # WireGuard, firewall, netlink
    "config",  # TOML and environment to settings
    "domain",  # pure decisions and what they are about
)
NO_ROOM = {"": "the version", "__main__": "python -m appliance", "_native": "the C extension"}
MOST_FLOORS = 10  # of rooms: how many stand on each other

PURE = (
    "domain.*",
    "fleet.presence.choice",
    "fleet.presence.directory",
    "fleet.rpc.failures",
    "fleet.status.doctor_facts",
    "fleet.hub.config",
    "fleet.joining.messages",
    "fleet.joining.token",
    "fleet.quota.escrow",
    "fleet.quota.holder",
    "fleet.quota.messages",
    "fleet.rpc.rpc_messages",
    "fleet.status.status",
    "network.contention",
    "network.public_address",
    "network.reconcile",
    "network.admission.mark",
    "network.admission.policy_rules",
    "network.admission.tunnel_filter",
    "network.source_address",
    "network.wireguard.ownership",
    "network.singled_out",
    "network.firewall.state",
    "network.firewall.nft_json",
    "network.firewall.simulator",
    "network.firewall.coexistence",
    "network.firewall.chains.*",
    "network.firewall.port_ranges",
    "network.firewall.published_ports",
    "network.firewall.forwarding",
    "network.firewall.reverse_path",
    "network.firewall.sysctl_paths",
    "network.firewall.other_routing",
    "network.firewall.rules",
    "network.firewall.ruleset",
    "network.firewall.settled_listeners",
    "network.firewall.flow_capacity",
    "network.firewall.flow_excess",
    "network.firewall.table_choice",
    "cli.table",
    "cli.usage_fields",
    "fleet.reports.epochs",
    "config.cautions",
    "config.foreign_variables",
    "config.reloadable",
    "client.api.responses",
    "client.run_totals",
    "client.tunnel.device_config",
    "client.tunnel.wg_config",
    "client.ui.status_text",
    "ops.doctor.admission",
    "ops.doctor.diagnosis",
    "ops.doctor.finding",
    "ops.doctor.firewall",
    "ops.doctor.fleet",
    "ops.doctor.iptables_save",
    "ops.doctor.machine",
    "ops.doctor.ports",
    "ops.doctor.server",
    "ops.doctor.state",
    "ops.doctor.tracking",
    "ops.doctor.tunnel",
    "server.api.accept",
    "server.api.error_codes",
    "server.api.openapi_document",
    "server.console.reference",
)
READS_THE_CLOCK = "domain.clock"  # the one module of domain/ that asks the host something
INPUT_OUTPUT = {
    *("asyncio", "socket", "sqlite3", "time", "os", "pathlib", "subprocess", "threading", "aiosqlite", "random")
}

Graph = dict[str, set[str]]


@cache
def modules() -> Mapping[str, Path]:
    """Every module of the package by its name below `appliance`; the package itself is ''."""
    found = {"_native": ROOT / "appliance" / "_native.pyi"}
    for file in (ROOT / "appliance").rglob("*.py"):
        parts = file.relative_to(ROOT / "appliance").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(source: str) -> Iterator[str]:
    """Names every module that `source` imports: inside functions, and for type checkers alone, too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                # `from package import name` is of a module or of something in one.
                yield whole if whole.removeprefix("appliance.") in modules() else str(node.module)


@cache
def imports() -> Graph:
    """The modules of this package that each of its modules imports."""
    return {module: _own(file.read_text(encoding="utf-8")) for module, file in modules().items()}


def _own(source: str) -> set[str]:
    names = (name for name in imported(source) if name.split(".")[0] == "appliance")
    return {name.removeprefix("appliance").removeprefix(".") for name in names}


def room(module: str) -> str:
    return module.partition(".")[0]


def upward(graph: Graph) -> list[str]:
    """Lists the imports that lead from a room to one above it."""
    height = {name: depth for depth, name in enumerate(ROOMS)}
    return sorted(
        f"{module} -> {target}"
        for module, targets in graph.items()
        for target in targets
        if room(module) in height and room(target) in height and height[room(target)] < height[room(module)]
    )


def circles(graph: Graph) -> list[str]:
    """Names the modules of one circle of imports; empty where there is none."""
    # A package's __init__ runs before what is in it; that it imports a part of itself is no circle.
    without_packages = {module: targets - {module, module.rpartition(".")[0]} for module, targets in graph.items()}
    try:
        TopologicalSorter(without_packages).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def floors(graph: Graph) -> int:
    """Counts the rooms that stand on each other, the longest way down."""
    below = {name: {room(t) for m, ts in graph.items() for t in ts if room(m) == name} & set(ROOMS) for name in ROOMS}
    order = TopologicalSorter({name: targets - {name} for name, targets in below.items()}).static_order()
    height: dict[str, int] = {}
    for name in order:
        height[name] = 1 + max((height[target] for target in below[name] - {name}), default=0)
    return max(height.values())


def test_every_module_has_a_room() -> None:
    """A new module stands in one of the rooms, and each room has some."""
    rooms = {room(module) for module in modules()}
    assert rooms - set(ROOMS) - set(NO_ROOM) == set()
    assert set(ROOMS) <= rooms


def test_imports_lead_downward(show: Callable[[str], None]) -> None:
    """No room imports from one above it, no circle is left, and few rooms stand on each other."""
    graph = imports()
    up, circle = upward(graph), circles(graph)
    assert up == []
    assert circle == []
    assert floors(graph) <= MOST_FLOORS
    rooms = len({room(module) for module in graph} & set(ROOMS))
    show(f"rooms {rooms}, floors {floors(graph)}, arrows up {len(up)}, circles {len(circle)}")


def test_only_the_command_line_imports_the_process() -> None:
    """`python -m appliance` and the commands alone know of the command line."""
    for module, targets in imports().items():
        if module != "__main__" and room(module) != "cli":
            assert "cli" not in {room(target) for target in targets}, module


def pure_modules() -> list[str]:
    names = {entry.removesuffix(".*") for entry in PURE}
    packages = tuple(entry.removesuffix("*") for entry in PURE if entry.endswith(".*"))
    assert names <= set(modules()), "an entry of PURE is left over from a module that went"
    return sorted(m for m in modules() if (m in names or m.startswith(packages)) and m != READS_THE_CLOCK)


@pytest.mark.parametrize("module", pure_modules())
def test_decisions_do_no_input_or_output(module: str) -> None:
    """What decides is given the facts and the time."""
    source = modules()[module].read_text(encoding="utf-8")
    assert not {name.split(".")[0] for name in imported(source)} & INPUT_OUTPUT


def test_an_upward_import_is_found() -> None:
    """An import for type checkers counts, inside a function too; so does one that closes a circle."""
    source = """
from __future__ import annotations
from typing import TYPE_CHECKING
import os.path
if TYPE_CHECKING:
    from appliance.server import run
def late():
    from appliance.network.wireguard import keys
    try:
        from appliance.domain.errors import HostError
    except ImportError:
        import sqlite3
"""
    names = {"__future__", "typing", "os.path", "sqlite3"}
    own = {"server.run", "network.wireguard.keys", "domain.errors"}
    assert set(imported(source)) == names | {f"appliance.{name}" for name in own}
    graph = {"domain.windows": _own(source), "server.run": {"domain.windows"}}
    assert upward(graph) == ["domain.windows -> network.wireguard.keys", "domain.windows -> server.run"]
    assert circles(graph) == ["domain.windows", "server.run", "domain.windows"] or circles(graph)[0] == "server.run"
    assert floors({"cli.serve": {"server.run"}, "server.run": {"domain.windows"}}) == 3
