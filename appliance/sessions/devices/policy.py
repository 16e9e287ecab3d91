"""Tells what holds for an account's devices now: where they are made, how many, and in what state each is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance.domain.device import Circumstances, Condition, decide
from appliance.domain.entities import State
from appliance.sessions.device_circumstances import counted_live

if TYPE_CHECKING:
    from appliance.config.plans import Terms
    from appliance.domain.device import Device
    from appliance.domain.entities import Account, Session
    from appliance.metering.usage import Quotas
    from appliance.sessions.batch_opens import Placement
    from appliance.sessions.node import Node
    from appliance.store.live import LiveSessions


@dataclass(frozen=True, slots=True)
class DevicesStanding:
    """Holds what all devices of an account share: the circumstances of one that is neither paused nor connected."""

    shared: Circumstances

    def condition(self, device: Device, session: Session | None) -> Condition:
        """Returns the state of a device. `session`: the one that it has."""
        connected = session is not None and session.state is State.LIVE
        return decide(replace(self.shared, paused=device.paused, connected=connected))


class DevicePolicy:
    """Answers from memory, the terms in force and the node."""

    def __init__(self, *, live: LiveSessions, node: Node, placement: Placement, terms: Terms, quotas: Quotas) -> None:
        self._live = live
        self._node = node
        self._placement = placement
        self._terms = terms
        self._quotas = quotas

    @property
    def public_ip(self) -> str:
        """Returns what clients are told now."""
        return self._node.public_ip

    def most(self, account: Account) -> int | None:
        """Returns how many devices the account may have: 0 for any number, None for none."""
        return self._terms.tiers[account.tier].max_devices

    def place(self, region: str) -> Node:
        """Returns the node that a new device is of. Raises NoActiveNodes or NoActiveNodeInRegion.

        A node that is drained and works takes devices: they are held until it is resumed.
        """
        node = self._node
        if node.drained and node.region == region and node.health.healthy:
            return node
        return self._placement.choose(region)

    async def standing(self, account: Account, *, without: Session | None = None) -> DevicesStanding:
        """Returns what holds for the account. `without`: a session that is about to end. Raises StoreUnavailable."""
        quota = await self._quotas.of(account)
        own = self._live.number_live(account.id) - (without is not None and without.state is State.LIVE)
        limit = self._terms.tiers[account.tier].max_live_sessions
        return DevicesStanding(
            Circumstances(
                disabled=account.disabled,
                drained=self._node.drained,
                quota=quota,
                live=counted_live(own, limit, quota, begins=False),
                live_limit=limit,
            )
        )
