"""Install, upgrade and uninstall keep out of each other's way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.ops import lock

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from appliance.ops.install.layout import Layout


def one_at_a_time(layout: Layout) -> AbstractContextManager[None]:
    """Raises HostError while another one works."""
    folder = layout.programs.parent  # every host has it
    return lock.locked(folder, "another install, upgrade or uninstall is at work here: try again later")
