"""Sizes: a function or a class can be read at once, and a class name means one thing."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE = Path(__file__).parents[2] / "appliance"
MOST_LINES = 40  # of a function
MOST_FIELDS = 9  # of a class, and parameters of a function
LONGEST_FILE = 350  # lines

LARGER = {
    "fleet.accounts.sync_messages.SyncAnswer": "mirrors a message",
    "fleet.joining.messages.JoinAnswer": "mirrors a message",
    "fleet.joining.messages.JoinRequest": "mirrors a message",
    "config.settings.EgressSettings": "mirrors a section of the configuration file",
    "config.settings.WireGuardSettings": "mirrors a section of the configuration file",
    "domain.device.Device": "mirrors a row of the table devices",
    "domain.fleet_member.FleetMember": "mirrors a row of the table fleet_members",
    "domain.entities.Session": "mirrors a row of the table sessions",
    "fleet.presence.beats.Beat": "mirrors a record that exits send each other",
    "fleet.status.status.FleetStatus": "mirrors what `fleet status --json` prints",
    "fleet.status.status.NodeStatus": "mirrors what `fleet status --json` prints",
    "fleet.rpc.facts.DeviceFacts": "mirrors what an answer says of a device",
    "fleet.rpc.facts.SessionFacts": "mirrors what an answer says of a session",
    "fleet.reports.reports.SessionReport": "mirrors a record that exits send",
    "store.queries.fleet_fold.FoldedRow": "mirrors a row of the table fleet_sessions",
    "store.queries.fleet_replica.KeptMember": "mirrors a record that a hub sends",
    "store.queries.fleet_reports.ReportRow": "mirrors a row of the table fleet_reports",
    "server.api.device_schemas.DeviceStatus": "mirrors the body of an answer",
    "server.api.routes.devices._changes": "lists routes, each a function of its own",
    "server.api.routes.devices.device_routes": "lists routes, each a function of its own",
    "server.api.routes.sessions.session_routes": "lists the routes, each a function of its own",
    "server.api.schemas.QuotaErrorBody": "mirrors the body of an answer",
    "server.api.schemas.SessionStatus": "mirrors the body of an answer",
    "sessions.new_session.new_session": "fills a row of the table sessions",
    "store.queries.session_list.ListedSession": "mirrors a row that is listed",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def definitions() -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Yields every class and function of the package with its full name below `appliance`."""
    for file in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        yield from _within(ast.parse(file.read_text(encoding="utf-8")), module)


def _within(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}.{child.name}", child
            yield from _within(child, f"{prefix}.{child.name}")
        else:
            yield from _within(child, prefix)


def lines(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> int:
    """Counts the parameters that a caller may pass."""
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def fields(class_: ast.ClassDef) -> int:
    """Counts the annotated fields, class variables aside."""
    annotations = [each.annotation for each in class_.body if isinstance(each, ast.AnnAssign)]
    return len([each for each in annotations if not ast.unparse(each).startswith("ClassVar")])


def larger() -> set[str]:
    """Names the functions and classes that are larger than most may be."""
    found = set()
    for name, node in definitions():
        if isinstance(node, ast.ClassDef):
            too_large = fields(node) > MOST_FIELDS
        else:
            too_large = lines(node) > MOST_LINES or parameters(node) > MOST_FIELDS
        if too_large:
            found.add(name)
    return found


def test_functions_and_classes_are_small(show: Callable[[str], None]) -> None:
    """What is larger stands in a table with its reason; an entry that is no longer needed fails too."""
    assert larger() == set(LARGER)
    longest = max(lines(node) for name, node in definitions() if isinstance(node, Function) and name not in LARGER)
    show(f"longest function {longest} lines")


def test_files_are_short() -> None:
    """A file past the limit is two things."""
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in PACKAGE.rglob("*.py")}
    assert [str(file) for file, length in lengths.items() if length > LONGEST_FILE] == []


def test_a_class_name_means_one_thing() -> None:
    """No two classes of the package have the same name."""
    counts = Counter(node.name for _, node in definitions() if isinstance(node, ast.ClassDef))
    assert [name for name, count in counts.items() if count > 1] == []


def test_what_is_counted() -> None:
    """Keyword-only parameters and inner functions count; `self` and class variables do not."""
    (class_,) = ast.parse("class C:\n    a: int\n    b: ClassVar[int]\n    def f(self, a, *, b): ...\n").body
    assert isinstance(class_, ast.ClassDef)
    assert fields(class_) == 1
    ((name, method),) = _within(class_, "C")
    assert isinstance(method, ast.FunctionDef)
    assert (name, parameters(method), lines(method)) == ("C.f", 2, 1)
