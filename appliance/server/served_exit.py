"""Describes the running exit to what is built around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from appliance.config.reloadable import in_force

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.config.load import Settings
    from appliance.domain.believed_clock import BelievedClock
    from appliance.server.assembly import Parts
    from appliance.sessions.metrics import Metrics
    from appliance.store.database import Store
    from appliance.store.state_dir import StateDir


@dataclass(frozen=True, slots=True)
class ServedExit:
    """Holds the running exit. `take_over`: applies settings that were read anew, as SIGHUP does."""

    settings: Settings
    state: StateDir
    store: Store
    parts: Parts
    own_key: bytes
    clock: BelievedClock
    metrics: Metrics
    take_over: Callable[[Settings], None]

    def reloaded(self, read: Settings) -> ServedExit:
        """Returns it with settings that were read anew, as far as they need no restart."""
        return replace(self, settings=in_force(self.settings, read))
