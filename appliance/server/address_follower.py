"""Follows the host's addresses and default routes: what clients are told, and what their packets leave with."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.domain.errors import HostError
from appliance.network import public_address, standing_note
from appliance.network.uplinks import look
from appliance.server import egress_assembly

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from appliance.config.settings import Settings
    from appliance.network.firewall.firewall import HostEgress
    from appliance.network.firewall.rules import EgressRules
    from appliance.network.public_address import Standing
    from appliance.network.uplinks import HostView
    from appliance.server.assembly import LocalExit
    from appliance.sessions.metrics import Metrics

    Address = IPv4Address | IPv6Address

log = logging.getLogger(__name__)

OTHER_VERSION_AFTER_S = 5.0
NO_WAY_OUT = "this host has no default route any more: nothing of what clients send can leave"


class AddressFollower:
    """Takes over each change of the host's addresses, within the tick that finds it.

    `local` is how the exit stands now. Implements `Host` (sessions/convergence.py).
    """

    def __init__(self, settings: Settings, local: LocalExit, egress: HostEgress, note: Path, metrics: Metrics) -> None:
        self.local = local
        self._settings = settings
        self._egress = egress
        self._note = note
        self._metrics = metrics
        self._fault: str | None = None
        self._unread: str | None = None
        self._other_version_since: float | None = None
        self.wake_up: Callable[[], None] = lambda: None  # requests a tick
        # What flows may leave with: those that began under the last process, too.
        self._leave_with = standing_note.read(note) or local.standing
        standing_note.note(note, local.standing)

    @property
    def public_ip(self) -> str:
        return str(self.local.standing.address)

    @property
    def tunnel_mtu(self) -> int:
        return self.local.standing.tunnel_mtu

    def clients_dial(self, addresses: Sequence[Address]) -> None:
        """Takes over what the host name that clients dial resolves to: they reach the API there."""
        services = replace(self.local.services, endpoints=tuple(addresses))
        self.local = replace(self.local, services=services)
        self._egress.take_over(self._rules())
        self.wake_up()

    def reconfigure(self, settings: Settings) -> None:
        """Applies a reloaded configuration of the egress."""
        self._settings = settings
        self._egress.take_over(self._rules())

    async def observe(self) -> str | None:
        """Takes over what has changed. Returns why clients' packets cannot leave; None if they can, or never could.

        An exit that began without a default route serves a network without one.
        """
        configured = self._settings.node.public_ip
        asked = configured or self.local.standing.address
        try:
            view = await asyncio.to_thread(look, asked, self.local.exit.interface)
        except HostError as error:
            if self._unread != str(error):
                log.warning("what clients are told may be out of date: %s", error)
            self._unread = str(error)
            return self._fault
        self._unread = None
        now = public_address.decide(configured, view, self.local.standing)
        if now is not None and not self._is_lasting(now):
            now = public_address.decide(self.local.standing.address, view, self.local.standing)
        if now is not None:
            self._take_over(now, view.own)
        self._report_way_out(view)
        return self._fault

    def _is_lasting(self, now: public_address.Standing) -> bool:
        """Tells whether an address of the other IP version has been found for a while.

        Where an address is replaced, the host has none of its version for a moment; not all clients can dial the other.
        """
        if now.address.version == self.local.standing.address.version:
            self._other_version_since = None
            return True
        if self._other_version_since is None:
            self._other_version_since = time.monotonic()
            asyncio.get_running_loop().call_later(OTHER_VERSION_AFTER_S, self.wake_up)
        return time.monotonic() - self._other_version_since >= OTHER_VERSION_AFTER_S

    def _take_over(self, now: Standing, own: Collection[Address]) -> None:
        before, abandoned = self.local.standing, public_address.abandoned(self._leave_with, now, own)
        self._leave_with = now
        if now == before and not abandoned:
            return
        for line in public_address.changes_in_words(before, now):
            log.warning("%s", line)
        if now.address != before.address:
            self._metrics.public_address_changes.inc()
        self.local = replace(self.local, standing=now)
        self._egress.take_over(self._rules(), abandoned)
        standing_note.note(self._note, now)

    def _report_way_out(self, view: HostView) -> None:
        fault = _without_way_out(self.local.standing, view)
        if fault is not None and self._fault is None:
            log.error("not ready: %s; it is ready again once there is one", fault)
        elif fault is None and self._fault is not None:
            log.info("this host has a default route again")
        elif fault is not None and fault != self._fault:
            log.error("not ready: %s", fault)
        self._fault = fault

    def _rules(self) -> EgressRules:
        return egress_assembly.egress_rules(self._settings, self.local)


def _without_way_out(standing: Standing, view: HostView) -> str | None:
    """Returns why clients are not served: nothing can leave, or no answer to the address that they dial."""
    if standing.ways and not view.uplinks:
        return NO_WAY_OUT
    version = standing.address.version
    if version in standing.ways and version not in view.uplinks:
        return (
            f"this host has no IPv{version} default route any more: clients that dial {standing.address} get no answer"
        )
    return None
