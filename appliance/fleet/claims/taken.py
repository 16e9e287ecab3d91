"""Tells which of an exit's devices have a key or a name that another exit has claimed."""

from __future__ import annotations

from typing import NamedTuple

MOST_SHOWN = 20


class TakenClaims(NamedTuple):
    """Tells what of this exit's devices and sessions others have too: how many keys and names, and some of whose."""

    number: int = 0
    shown: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = ", ..." if len(self.shown) == MOST_SHOWN else ""
        return f"{self.number}" + (f" ({', '.join(self.shown)}{more})" if self.shown else "")


NOTHING_TAKEN = TakenClaims()
