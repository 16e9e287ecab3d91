"""Keeps install, upgrade and uninstall from running at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.ops import lock

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from appliance.ops.install.layout import Layout


def one_at_a_time(layout: Layout) -> AbstractContextManager[None]:
    """Locks the installation. Raises HostError: while another install, upgrade or uninstall runs."""
    folder = layout.programs.parent  # exists on every host
    return lock.locked(folder, "another install, upgrade or uninstall is at work here: try again later")
