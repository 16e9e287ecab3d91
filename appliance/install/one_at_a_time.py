"""Install, upgrade and uninstall keep out of each other's way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance import folder_lock

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from appliance.install.layout import Layout


def one_at_a_time(layout: Layout) -> AbstractContextManager[None]:
    """Raises HostError while another one works."""
    folder = layout.programs.parent  # every host has it
    return folder_lock.locked(folder, "another install, upgrade or uninstall is at work here: try again later")
