"""Keeps what the host forwards, and by which interfaces clients' packets leave: read again when the host changes."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import astuple
from typing import TYPE_CHECKING

from appliance.domain.errors import EgressError, HostError
from appliance.network.firewall import forwarding, reverse_path
from appliance.network.firewall.other_routing import relying
from appliance.network.firewall.sysctl_paths import NAMEABLE, ON
from appliance.network.outgoing import Outgoing, read_outgoing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from appliance.network.firewall.rules import EgressRules, Transit
    from appliance.network.firewall.sysctls import Forwarding

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 10.0  # routes that are neither default ones nor the tunnel's cause no event


class ObservedForwarding:
    """Observes the host for these rules. `sysctls` reads and sets."""

    def __init__(self, rules: EgressRules, sysctls: Forwarding) -> None:
        self.sysctls = sysctls
        self._rules = rules
        self._outgoing = Outgoing(frozenset(), frozenset())
        self._look_at = 0.0
        self._fault: str | None = None
        self.needed_by_others = False  # the switch that an earlier version has set

    def take_over(self, rules: EgressRules) -> None:
        self._rules = rules
        self._look_at = 0.0

    def host_changed(self) -> None:
        """Notes that links or routes have changed."""
        self._look_at = 0.0

    async def observe(self) -> None:
        """Reads by which interfaces clients' packets leave, if it may have changed; if that fails, nothing changes."""
        if time.monotonic() < self._look_at:
            return
        # Set before reading: what changes meanwhile is read again.
        self._look_at = time.monotonic() + LOOK_AGAIN_S
        try:
            self.sysctls.follow_names()
            self._outgoing = await asyncio.to_thread(self._read)
            self._fault = None
        except (EgressError, HostError) as error:
            if str(error) != self._fault:
                log.warning("by which interfaces clients' packets leave is not known: %s", error)
            self._fault = str(error)

    def _read(self) -> Outgoing:
        rules = self._rules
        blocks = rules.blocks
        found = read_outgoing(
            rules.tunnel.interface,
            blocks.allowed,
            private_blocked=blocks.private,
            all_interfaces=rules.forward_others,
        )
        return Outgoing(*(frozenset(filter(NAMEABLE.fullmatch, names)) for names in astuple(found)))

    @property
    def uplinks(self) -> frozenset[str]:
        return self._outgoing.interfaces

    @property
    def answering(self) -> frozenset[str]:
        """Returns the interfaces by which a route leads out for what is bound to them."""
        return self._outgoing.answering

    def host(self) -> forwarding.HostForwarding:
        """Returns how the host forwards now."""
        default, bridges = self._outgoing.default, self._outgoing.bridges
        values = self.sysctls.read({*self.uplinks, *bridges, self._rules.tunnel.interface})
        unsettable = frozenset(name for name in self.sysctls.unsettable if not forwarding.is_needed(name, ON, default))
        return forwarding.HostForwarding(values, dict(self.sysctls.found), self.uplinks, unsettable, bridges)

    def adopt(self) -> None:
        """Takes what is set for the appliance's own if the record of it is lost. It has served in this boot."""
        if self.sysctls.has_record:
            return
        before = forwarding.presumed(self.host(), ipv6=self._rules.tunnel.subnet6 is not None)
        if before:
            self.sysctls.adopt(before)
            log.warning("no record of sysctls: those that forward count as set by the appliance: %s", ", ".join(before))

    def transit(self, host: forwarding.HostForwarding) -> Transit:
        """Returns what the table has to keep from being forwarded."""
        if self._rules.forward_others:
            return forwarding.NO_TRANSIT
        tunnel = self._rules.tunnel
        return forwarding.transit(host, tunnel.interface, self._outgoing.bridges, ipv6=tunnel.subnet6 is not None)

    def filtered(self, host: forwarding.HostForwarding) -> frozenset[str]:
        """Returns by which interfaces answers to clients have to pass the reverse path filter."""
        return reverse_path.filtered(host.values, host.uplinks | host.bridges)

    def require(self) -> None:
        """Raises EgressError if sysctls that clients' traffic needs cannot be set here. Changes nothing."""
        self.sysctls.require(self._wanted(), self._rules.tunnel.interface, self._outgoing.default)

    def set(self, wanted: Mapping[str, str]) -> None:
        """Sets sysctls. Raises EgressError."""
        self.sysctls.set(wanted, self._rules.tunnel.interface, self._outgoing.default)

    async def give_back(self, listing: Callable[[], Awaitable[str]]) -> None:
        """Switches off what an earlier version has switched on for the whole host, unless another program needs it.

        `listing` returns the output of `nft -j list ruleset`.
        """
        kept: object
        try:
            needing = relying(await listing())
            kept = None if needing is None else f"{needing} needs it"
            if needing is None:
                self.sysctls.give_back(self._rules.tunnel.interface, self.uplinks)
        except (EgressError, LookupError, TypeError, ValueError, AttributeError) as error:
            kept = error
        self.needed_by_others = kept is not None
        if kept is not None:
            log.warning("net.ipv4.ip_forward = 1 stays, which an earlier version has set: %s", kept)

    def _wanted(self) -> Mapping[str, str]:
        tunnel = self._rules.tunnel
        return forwarding.to_set(self.host(), tunnel.interface, ipv6=tunnel.subnet6 is not None)
