"""Slows down repairs that another program keeps undoing, and says so: once at its beginning, once at its end."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.network.contention import LONGEST_S, Contention
from appliance.network.firewall.state import EgressChanges
from appliance.network.reconcile import PeerChanges
from appliance.sessions.metrics import CONTENDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from appliance.network.reconcile import Changes
    from appliance.sessions.metrics import Metrics

log = logging.getLogger(__name__)

FIREWALL, SYSCTL, INTERFACE, DEVICE, PEERS = KINDS = CONTENDED
WORDS = {
    FIREWALL: "the nftables table, without which clients reach nothing",
    SYSCTL: "the host's forwarding sysctls",
    INTERFACE: "the tunnel's interface",
    DEVICE: "the tunnel's private key or port",
    PEERS: "the tunnel's peers",
}
ANOTHER = "another program"


class Contentions:
    """Holds one contention for each kind of repair. `note` records those that are on, in words, by kind."""

    def __init__(
        self,
        metrics: Metrics,
        note: Callable[[Mapping[str, str]], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._note = note
        self._monotonic = monotonic
        self._by_kind = {kind: Contention() for kind in KINDS}
        self._told: dict[str, str] = {}
        note(self._told)

    def due(self, changes: Changes) -> Changes:
        """Returns the changes without those that have to wait."""
        self._end()
        held = {kind for kind in KINDS if self.wait_s([kind])}
        if changes.link is not None and changes.link.create:
            held -= {FIREWALL}  # nothing is forwarded without its rules
        if not held:
            return changes
        egress = changes.egress
        if egress is not None:
            egress = replace(
                egress,
                close=egress.rules and FIREWALL in held and not egress.declared,
                rules=egress.rules and (FIREWALL not in held or egress.declared),
                sysctls={} if SYSCTL in held and not egress.declared else egress.sysctls,
            )
        return replace(
            changes,
            egress=None if egress == EgressChanges() else egress,
            link=None if INTERFACE in held else changes.link,
            device=None if DEVICE in held else changes.device,
            peers=PeerChanges() if PEERS in held else changes.peers,
        )

    def repaired(self, kind: str, by: str = "") -> None:
        """Notes a repair. `by`: the program that made it necessary, if it is known."""
        if self._by_kind[kind].repaired(self._monotonic()):
            self._told[kind] = f"{WORDS[kind]}: changed again and again by {by or ANOTHER}"
            log.warning("%s; put right at most every %g s, stop what changes it", self._told[kind], LONGEST_S)
            self._tell(kind, on=True)

    def wait_s(self, kinds: Iterable[str]) -> float:
        """Returns how long repairs of all these kinds have to wait."""
        now = self._monotonic()
        return min((self._by_kind[kind].wait_s(now) for kind in kinds), default=0.0)

    def _end(self) -> None:
        now = self._monotonic()
        for kind, contention in self._by_kind.items():
            if contention.ended(now):
                log.info("%s: not changed by another program any more", WORDS[kind])
                self._told.pop(kind, None)
                self._tell(kind, on=False)

    def _tell(self, kind: str, *, on: bool) -> None:
        self._metrics.contended.labels(kind).set(on)
        self._note(self._told)
