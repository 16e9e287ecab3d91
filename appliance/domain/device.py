"""Defines devices, named peers that stay, and decides what state each is in."""

from __future__ import annotations

from enum import IntFlag, StrEnum
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from appliance.domain.entities import Reason

if TYPE_CHECKING:
    from appliance.domain.entities import Baseline
    from appliance.domain.quota import Quota
    from appliance.domain.tiers import Tier


class DeviceState(StrEnum):
    """Names a device's state. HELD: it may not connect now, for a reason that is not its owner's."""

    IDLE = "idle"
    CONNECTED = "connected"
    PAUSED = "paused"
    HELD = "held"
    REMOVED = "removed"


class HeldReason(StrEnum):
    """Names why a device is held, what outweighs the others first. A pause stands between ACCOUNT_ENDED and DRAINED."""

    ACCOUNT_DISABLED = "account_disabled"
    ACCOUNT_ENDED = "account_ended"
    DRAINED = "drained"
    QUOTA_EXCEEDED = "quota_exceeded"
    LIVE_SESSION_LIMIT = "live_session_limit"


class Outdated(IntFlag):
    """Names what of a device's file a renumbering has made wrong, as bits of a number in the store."""

    ADDRESS = 1
    ADDRESS6 = 2
    SERVER_KEY = 4


NOTHING = Outdated(0)
StalePart = Literal["address", "address6", "server_key", "endpoint"]
_STALE: tuple[tuple[Outdated, StalePart], ...] = (
    (Outdated.ADDRESS, "address"),
    (Outdated.ADDRESS6, "address6"),
    (Outdated.SERVER_KEY, "server_key"),
)


class Device(Struct, frozen=True, gc=False):
    """Describes a device as the store holds it; `account`, `account_tier` and `account_disabled` are its account's.

    `address_offset` is its offset in the subnet (and, if `ipv6`, in subnet6), its alone for as long as it exists.
    `endpoint` is what its file says, host and port; `outdated` is what else it says that is no longer so. `bytes_in`,
    `bytes_out`, `counted_ms` and `last_handshake_at` are those of its sessions that have ended. `handshake_seen_ns` and
    `baseline` are the peer's handshake time and counters as last read for a session: another handshake opens the next
    one, which has what the counters moved meanwhile. `unfinished_rx` and `unfinished_tx` are bytes of handshakes that
    came to nothing, which the next session has too. `installed`: its peer has been put into the tunnel; before that,
    one with its key is what a device has left that was removed.
    """

    id: str
    account_id: str
    account: str
    account_tier: Tier
    account_disabled: bool
    name: str
    region: str
    public_key: bytes
    address_offset: int
    ipv6: bool
    created_at: int
    paused: bool
    endpoint: str
    bytes_in: int = 0
    bytes_out: int = 0
    counted_ms: int = 0
    last_handshake_at: int | None = None
    handshake_seen_ns: int = 0
    unfinished_rx: int = 0
    unfinished_tx: int = 0
    outdated: Outdated = NOTHING
    installed: bool = False
    baseline: Baseline | None = None

    def stale(self, endpoint: str | None) -> tuple[StalePart, ...]:
        """Returns what its file says that is no longer so. `endpoint`: what a file made now says; None: unknown."""
        moved: tuple[StalePart, ...] = () if endpoint in (None, self.endpoint) else ("endpoint",)
        return (*(name for part, name in _STALE if part in self.outdated), *moved)


class Circumstances(Struct, frozen=True, gc=False):
    """Holds what decides whether a device may connect.

    `connected`: it has a session that is not ending. `quota`: its account's, None if unlimited. `live`: how many
    sessions its account has that are not ending; it may have `live_limit`, 0 for any number.
    """

    disabled: bool = False
    ended: bool = False
    paused: bool = False
    drained: bool = False
    quota: Quota | None = None
    live: int = 0
    live_limit: int = 0
    connected: bool = False


class Condition(Struct, frozen=True, gc=False):
    """Holds a device's state; where it is held, why, and until when if that is known (ms since the epoch)."""

    state: DeviceState
    held_reason: HeldReason | None = None
    held_until: int | None = None

    @property
    def has_peer(self) -> bool:
        """Tells whether the tunnel has its peer, so that a handshake can come about."""
        return self.state in (DeviceState.IDLE, DeviceState.CONNECTED)

    @property
    def reason(self) -> Reason | None:
        """Returns why a session ends at once that a handshake begins all the same; None: it does not."""
        if self.has_peer:
            return None
        return Reason.PAUSED if self.held_reason is None else _REASONS[self.held_reason]


# No account ends yet.
_REASONS = {
    HeldReason.ACCOUNT_DISABLED: Reason.ADMIN,
    HeldReason.DRAINED: Reason.DRAINED,
    HeldReason.QUOTA_EXCEEDED: Reason.QUOTA_EXCEEDED,
    HeldReason.LIVE_SESSION_LIMIT: Reason.LIVE_SESSION_LIMIT,
}
IDLE, CONNECTED = Condition(DeviceState.IDLE), Condition(DeviceState.CONNECTED)
PAUSED, REMOVED = Condition(DeviceState.PAUSED), Condition(DeviceState.REMOVED)


def decide(now: Circumstances) -> Condition:
    """Returns the state of a device that has not been removed.

    A drain and the limit of live sessions keep a session from beginning. What else holds a device also ends the session
    that it has.
    """
    if now.disabled:
        return Condition(DeviceState.HELD, HeldReason.ACCOUNT_DISABLED)
    if now.ended:
        return Condition(DeviceState.HELD, HeldReason.ACCOUNT_ENDED)
    if now.paused:
        return PAUSED
    if now.drained and not now.connected:
        return Condition(DeviceState.HELD, HeldReason.DRAINED)
    if now.quota is not None and now.quota.exceeded:
        return Condition(DeviceState.HELD, HeldReason.QUOTA_EXCEEDED, now.quota.resets_at)
    if now.connected:
        return CONNECTED
    if 0 < now.live_limit <= now.live:
        return Condition(DeviceState.HELD, HeldReason.LIVE_SESSION_LIMIT)
    return IDLE
