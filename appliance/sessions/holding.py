"""Holds devices that may not connect now, and lets them connect again as soon as they may."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from appliance.domain import device as devices
from appliance.sessions.device_circumstances import without_session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.config.plans import Terms
    from appliance.domain.clock import Moment
    from appliance.domain.device import Condition
    from appliance.domain.entities import Account
    from appliance.sessions.node import Node
    from appliance.sessions.records import Records

_BY_LIMITS = (devices.HeldReason.QUOTA_EXCEEDED, devices.HeldReason.LIVE_SESSION_LIMIT)


class Holding:
    """Decides for accounts, not for each of their devices: most of these differ in nothing that matters.

    An account is looked at when something of it has changed, or when the window ends that it has used up.
    """

    def __init__(self, *, records: Records, terms: Terms, node: Node) -> None:
        self._records = records
        self._terms = terms
        self._node = node
        self._idle: dict[str, Condition] = {}  # by account: of a device that is not paused and has no session
        self._due: list[tuple[int, str]] = []  # when which account has to be looked at again (wall clock, ms)
        self._changed: dict[str, set[bytes]] = {}  # by account: the devices that requests have decided on
        self._ahead_ms = 0
        self._basis: tuple[object, ...] | None = None  # what all of the above was decided on

    def changed(self, account_id: str, public_key: bytes | None = None) -> None:
        """Has the account looked at once more. `public_key`: of a device that a request has held or let go, by what was
        so then: it may differ from the account's other devices."""
        self._changed.setdefault(account_id, set()).update(() if public_key is None else (public_key,))

    def look(self, now: Moment) -> None:
        """Looks at the accounts that may have changed, and holds their devices or lets them go."""
        held, live = self._records.devices, self._records.live
        basis = (live.loads, self._terms.tiers, self._node.drained, self._ahead(now))
        turned_over, lending = live.take_changed_accounts(), self._records.lending
        if lending.grants is not None:
            lending.grants.turned_over(turned_over)
        changed = {*turned_over, *self._changed, *lending.take_holds_changed(), *self._due_by(now.wall_ms)}
        decided, self._changed = self._changed, {}
        if basis != self._basis:
            self._basis, self._idle, self._due, changed = basis, {}, [], set(held.accounts())
        for account in live.owners_among(changed & held.accounts()):
            self._look_at(account, now, decided.get(account.id, ()))

    def _ahead(self, now: Moment) -> int:
        """Returns by how much the wall clock is ahead of CLOCK_BOOTTIME: set back, it reopens a window that was over.

        A difference of a millisecond is the rounding of two clocks.
        """
        ahead_ms = now.wall_ms - now.boot_ms
        if abs(ahead_ms - self._ahead_ms) > 1:
            self._ahead_ms = ahead_ms
        return self._ahead_ms

    def _due_by(self, wall_ms: int) -> Iterable[str]:
        while self._due and self._due[0][0] <= wall_ms:
            yield heapq.heappop(self._due)[1]

    def _look_at(self, account: Account, now: Moment, decided: Iterable[bytes]) -> None:
        held = self._records.devices
        live, tier = self._records.live, self._terms.tiers[account.tier]
        lending = self._records.lending
        circumstances = without_session(
            live, account, tier, now, paused=False, drained=self._node.drained, lent=lending.lent
        )
        before, idle = self._idle.get(account.id), devices.decide(circumstances)
        self._idle[account.id] = idle
        if lending.grants is not None:
            lending.grants.note_held(account.id, held=idle.held_reason in _BY_LIMITS)
        if idle.held_until is not None and (before is None or before.held_until != idle.held_until):
            heapq.heappush(self._due, (idle.held_until, account.id))
        if before is not None and before.has_peer == idle.has_peer:
            own = [device for key in decided if (device := held.get(key)) is not None]
        else:
            own = held.of_account(account.id)
        for device in own:
            held.hold(device.public_key, held=device.paused or not idle.has_peer)
