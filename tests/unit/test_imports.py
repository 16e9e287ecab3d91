"""Imports go one way: from what joins, over what acts, to what decides."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

# From high to low. A module may import from its own layer and from lower ones. `x.*` is all that is in the package x
# and has no entry of its own.
LAYERS = (
    ("the process", ("__main__", "cli.*", "server")),
    ("what is joined", ("assembly", "api.*", "client.*", "install.*", "selftest.*")),
    (
        "what acts",
        (
            *(
                "tick",
                "sessions",
                "meter",
                "service_status",
                "reload",
                "convergence",
                "endings",
                "watches",
                "identity",
                "readiness",
                "live",
                "leftovers",
                "retired",
                "exit",
            ),
            *("nodes", "quotas", "tokens"),
        ),
    ),
    (
        "the edges",
        (
            *("store.*", "egress.host", "egress.forwarding", "addresses", "host_network", "listening", "state_dir"),
            "folder_lock",
            "running",
            *("backup", "backup_archive", "restore", "file_owner"),
            *(
                "alarm",
                "netlink_events",
                "egress.table_events",
                "egress.flows",
                "egress.forwarding_events",
                "key_locks",
                "supervision",
                "systemd",
                "wireguard.backend",
                "wireguard.genetlink",
                "wireguard.kernel",
            ),
            *("wireguard.link", "wireguard.link_events", "wireguard.timed", "wireguard.userspace"),
            *("wireguard.wireguard_go", "wireguard.worker"),
            *("doctor.gather", "doctor.system_clock", "doctor.udp_sockets"),
        ),
    ),
    (
        "what decides and what is named",
        (
            *("", "policy.*", "accounting", "entities", "errors", "clock", "identifiers", "_native", "egress"),
            *(
                "invoice",
                "config",
                "config_text",
                "config_values",
                "settings",
                "reconcile",
                "terms",
                "takeover",
                "lowest",
                "on_demand",
                "printable",
                "quantities",
                "logs",
                "metrics",
                "egress.nft_json",
                "egress.packet_filter",
                "egress.passage",
                "egress.ruleset",
                "egress.state",
            ),
            *("wireguard", "wireguard.attributes", "wireguard.dump", "wireguard.keys", "wireguard.linux"),
            "wireguard.peer_table",
            *("wireguard.quick", "wireguard.refusals", "wireguard.tunnel", "wireguard.xplatform"),
            *(
                "doctor",
                "doctor.diagnosis",
                "doctor.facts",
                "doctor.finding",
                "doctor.firewall",
                "doctor.iptables_save",
            ),
            *("doctor.machine", "doctor.server", "doctor.state"),
            "doctor.tunnel",
        ),
    ),
)
PLACES = {entry: depth for depth, (_, entries) in enumerate(LAYERS) for entry in entries}

PURE = (
    *("policy", "policy.admission", "policy.invoicing", "policy.pricing", "policy.quota", "policy.termination"),
    *(
        "policy.speed",
        "policy.windows",
        "accounting",
        "invoice",
        "reconcile",
        "takeover",
        "egress.state",
        "egress.nft_json",
        "egress.packet_filter",
        "egress.passage",
        "egress.ruleset",
    ),
    *("client.answers", "client.config_file", "client.status"),
    *("doctor.diagnosis", "doctor.finding", "doctor.firewall", "doctor.iptables_save", "doctor.machine"),
    *("doctor.server", "doctor.state", "doctor.tunnel"),
)
INPUT_OUTPUT = {
    "asyncio",
    "socket",
    "sqlite3",
    "time",
    "os",
    "pathlib",
    "subprocess",
    "threading",
    "aiosqlite",
    "random",
}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its name below `appliance`; the package itself is ''."""
    found = {"_native": ROOT / "appliance" / "_native.pyi"}
    for file in (ROOT / "appliance").rglob("*.py"):
        parts = file.relative_to(ROOT / "appliance").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def place(module: str) -> int | None:
    package = module
    while package not in PLACES and f"{package}.*" not in PLACES:
        if "." not in package:
            return None
        package = package.rpartition(".")[0]
        if package in PLACES and f"{package}.*" not in PLACES:
            return None  # the package has a place, but not all that is in it
    return PLACES.get(package, PLACES.get(f"{package}.*"))


def imported(module: str) -> Iterator[str]:
    """What a module imports when it runs, inside functions too. What only type checkers read does not count."""
    yield from _imported(ast.parse(modules()[module].read_text(encoding="utf-8")))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports name the whole path"
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            # `from package import name` is of a module or of something in one.
            yield whole if whole.removeprefix("appliance.") in modules() else str(node.module)
    for child in ast.iter_child_nodes(node):
        yield from _imported(child)


def own(module: str) -> set[str]:
    """The modules of this package that it imports."""
    names = (name for name in imported(module) if name.split(".")[0] == "appliance")
    return {name.removeprefix("appliance").removeprefix(".") for name in names}


@pytest.mark.parametrize("module", sorted(modules()))
def test_place(module: str) -> None:
    """Every module has a place."""
    assert place(module) is not None, (
        f"appliance/{module.replace('.', '/')}.py is new: add it to the layer it belongs to in LAYERS of {__file__}"
    )


def test_places_are_real() -> None:
    """No entry of the table is left over from a module that went."""
    packages = {f"{name.rpartition('.')[0]}.*" for name in modules()} | {f"{name}.*" for name in modules()}
    assert set(PLACES) - set(modules()) - packages == set()


@pytest.mark.parametrize("module", sorted(modules()))
def test_downward(module: str) -> None:
    """No module imports from a layer above its own."""
    here = place(module)
    upward = [name for name in own(module) if (place(name) or 0) < (here or 0)]
    assert not upward, f"{module} is {LAYERS[here or 0][0]} and must not import {upward}"


def test_no_cycles() -> None:
    """No module needs itself, over whatever way."""
    # A package's __init__ runs before what is in it; that it imports a part of itself is no cycle.
    graph = {module: own(module) - {module, module.rpartition(".")[0]} for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"an import cycle: {' -> '.join(error.args[1])}")


def test_nothing_imports_the_process() -> None:
    """The command line stands on top: only it, and python -m, know of it and of the server."""
    for module in modules():
        if module != "__main__" and not module.startswith("cli"):
            assert not {name for name in own(module) if name.split(".")[0] in ("cli", "server")}, module


@pytest.mark.parametrize("module", sorted(name for name in modules() if name in PURE or name.startswith("policy")))
def test_decisions_do_no_input_or_output(module: str) -> None:
    """What decides is given the facts and the time."""
    assert not {name.split(".")[0] for name in imported(module)} & INPUT_OUTPUT


def test_can_fail() -> None:
    """The reading of imports sees them inside functions and conditions, and leaves out those for type checkers."""
    source = """
from __future__ import annotations
from typing import TYPE_CHECKING
import os.path
if TYPE_CHECKING:
    from appliance.server import serve
def late():
    from appliance.wireguard import keys, quick
    try:
        from appliance.errors import HostError
    except ImportError:
        import sqlite3
"""
    assert set(_imported(ast.parse(source))) == {
        "__future__",
        "typing",
        "os.path",
        "appliance.wireguard.keys",
        "appliance.wireguard.quick",
        "appliance.errors",
        "sqlite3",
    }
    assert place("wireguard.somewhere_new") is None
    assert place("store.somewhere_new") is not None
