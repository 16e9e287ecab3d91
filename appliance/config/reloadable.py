"""Tells settings that a running server reloads from those that require a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.config.settings import by_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.config.settings import Settings

TAKEN_OVER = ("egress", "fleet", "pricing", "tiers")  # sections
AT_START = {
    # A packet on its way has the mark that it got: with another one, tunnels would lose packets.
    "egress": ("mark", "rule_priority"),
    # A hub's server keeps its port while it runs; the other exits dial what they were told.
    "fleet": ("listen", "advertise", "servers"),
}


def in_force(running: Settings, read: Settings) -> Settings:
    """Returns `running` with the reloadable sections of `read`."""
    taken_over = {section: getattr(read, section) for section in TAKEN_OVER}
    for section, keys in AT_START.items():
        kept = {key: getattr(getattr(running, section), key) for key in keys}
        taken_over[section] = replace(taken_over[section], **kept)
    return replace(running, **taken_over)


def left_out(running: Settings, read: Settings) -> list[str]:
    """Returns the keys of `read` that differ from `running` and require a restart."""
    return [key for key in differing(by_key(running), by_key(read)) if not is_taken_over(key)]


def differing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def is_taken_over(key: str) -> bool:
    """Tells whether SIGHUP suffices to apply the key."""
    section, _, name = key.partition(".")
    return section in TAKEN_OVER and name not in AT_START.get(section, ())
