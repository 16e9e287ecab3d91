"""Goes by the authorities of certificates that the hub tells, on another host; a standby keeps their keys, too."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain.errors import HostError, JoinRefused
from appliance.fleet.hub.authorities import mark_of_ca, mark_of_secrets
from appliance.fleet.joining.sealed_secrets import opened
from appliance.fleet.link.link import hub_tls

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.fleet.membership.identity import FleetFolder, Membership

log = logging.getLogger(__name__)


class FollowedAuthorities:
    """Writes them. `trust`: has this host go by a membership from now on."""

    def __init__(
        self,
        folder: FleetFolder,
        xkey: bytes,
        membership: Callable[[], Membership],
        trust: Callable[[Membership], None],
    ) -> None:
        self._folder = folder
        self._xkey = xkey
        self._membership = membership
        self._trust = trust
        self._of_hub = folder.hub_secrets() if membership().role == "standby" else None

    def marks(self) -> tuple[str, str]:
        """Returns what names the authorities, and the secrets of a hub, that this host has."""
        return mark_of_ca(self._membership().ca), mark_of_secrets(self._of_hub)

    async def take(self, ca: str, of_hub: bytes) -> bool:
        """Writes what is told; "" and b"": it is as it was. Returns whether this host has others now.

        What cannot be done is logged.
        """
        before = self.marks()
        try:
            if of_hub and self._membership().role == "standby":
                told = opened(of_hub, self._xkey)
                await asyncio.to_thread(self._folder.save_hub_secrets, told)
                self._of_hub = told
            if ca:
                hub_tls(ca)
                membership = replace(self._membership(), ca=ca)
                if self._folder.is_member:
                    await asyncio.to_thread(self._folder.save_membership, membership)
                self._trust(membership)
                log.info("the hub has told which authorities of certificates to trust from now on")
        except (HostError, JoinRefused, ValueError) as error:
            log.error("the fleet's authority is not followed: %s", error)
        return self.marks() != before
