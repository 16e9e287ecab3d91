"""Which settings a running server takes over when it is told to read them again, and which take a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.config.settings import by_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.config.settings import Settings

TAKEN_OVER = ("egress", "pricing", "tiers")  # sections


def in_force(running: Settings, read: Settings) -> Settings:
    """What a server runs with that has taken over what it can of `read`."""
    return replace(running, **{section: getattr(read, section) for section in TAKEN_OVER})


def left_out(running: Settings, read: Settings) -> list[str]:
    """The keys of `read` that differ from `running` and take a restart."""
    return [key for key in differing(by_key(running), by_key(read)) if not is_taken_over(key)]


def differing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def is_taken_over(key: str) -> bool:
    """Whether SIGHUP is enough for it."""
    return key.partition(".")[0] in TAKEN_OVER
