"""How an invariant says that it does not hold."""

from __future__ import annotations


class Violated(Exception):
    """An invariant does not hold."""


def require(holds: bool, invariant: str, *facts: object) -> None:
    if not holds:
        raise Violated(f"{invariant}: {', '.join(map(str, facts))}")
