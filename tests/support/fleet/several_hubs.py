"""Which of several hubs leads, and what each host is, as whole appliances say it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    from tests.support.fleet.appliances import FleetAppliance


def leading(exit_: FleetAppliance) -> tuple[str, int]:
    """Who leads, as an exit knows it, and in which generation."""
    found: Any = json.loads(exit_.admin("fleet", "status", "--json"))
    return next((node["name"] for node in found["nodes"] if node["role"] == "hub"), ""), found["generation"]


def agreed(exits: list[FleetAppliance]) -> tuple[str, int] | None:
    found = {leading(each) for each in exits}
    return found.pop() if len(found) == 1 else None


def await_successor(others: list[FleetAppliance], gen: int) -> FleetAppliance:
    """Another hub of these that leads, once they agree."""

    def found() -> str | None:
        by = agreed(others)
        return by[0] if by is not None and by[1] > gen and by[0] in {each.name for each in others} else None

    name = until(found, "another hub leads, and all that are there know it")
    return next(each for each in others if each.name == name)


def roles(exit_: FleetAppliance) -> dict[str, str]:
    found: Any = json.loads(exit_.admin("fleet", "status", "--json"))
    return {node["name"]: node["role"] for node in found["nodes"]}


def await_roles(exits: list[FleetAppliance], wanted: dict[str, str]) -> None:
    for each in exits:
        until(lambda each=each: roles(each) == wanted, f"{each.name} knows who is what")  # type: ignore[misc]
