"""Defines accounts, tokens, sessions and their states.

Instants are milliseconds since the epoch (UTC) and end in `_at`; durations name their unit.

Objects rebuilt each second for each peer with traffic are msgspec.Struct: replacing a field takes a thirtieth of a
dataclass's time. They form no reference cycles, so the garbage collector need not track them (`gc=False`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from appliance.domain.windows import UNUSED, Windows

if TYPE_CHECKING:
    from appliance.domain.pricing import Rates
    from appliance.domain.tiers import Tier


class State(StrEnum):
    """Names a session's state. PENDING: stored, the peer may be missing. CLOSING: ending, the peer may still exist."""

    PENDING = "pending"
    LIVE = "live"
    CLOSING = "closing"
    TERMINATED = "terminated"


class Reason(StrEnum):
    """Names why a session ended."""

    QUOTA_EXCEEDED = "quota_exceeded"
    EXPIRED = "expired"
    IDLE = "idle"
    CLOSED = "closed"
    REPLACED = "replaced"
    ADMIN = "admin"
    DRAINED = "drained"
    LIVE_SESSION_LIMIT = "live_session_limit"  # of devices alone, as the next two
    PAUSED = "paused"
    ROTATED = "rotated"


# What clients may take for a reason of the exit's own: no admin's text.
WORDS = frozenset(Reason) | {"account_disabled", "account_ended"}


class Account(Struct, frozen=True, gc=False):
    id: str
    name: str
    tier: Tier
    disabled: bool
    created_at: int
    windows: Windows = UNUSED


@dataclass(frozen=True, slots=True)
class Token:
    """Describes a token without its secret; `tier` is its account's."""

    id: str
    account: str
    tier: Tier
    label: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None


class Session(Struct, frozen=True, gc=False):
    """Describes a session as the store holds it.

    `tier` is the account's tier at creation, `account_tier` its current one. `address_offset` is the client's
    offset in the subnet (and, if `ipv6`, in subnet6). `bytes_in` is the client's upload.
    `handshake_seen_ns` is the peer's handshake time as last read: only a change shows that a handshake happened.
    `quiet_since_ms` is CLOCK_BOOTTIME of the boot `quiet_boot_id`: when the peer was last installed, or its
    last handshake change was seen; idleness counts from there.
    `counted_ms` is the session time counted so far, up to `counted_until_ms` of CLOCK_BOOTTIME in `counted_boot_id`.
    The tunnel can carry until `carries_until_ms` of the same clock; 0: it cannot. No session time passes after that.
    `rates` are those in force at creation; None if none were configured, and for tiers that do not pay.
    """

    id: str
    account_id: str
    account: str
    tier: Tier
    account_tier: Tier
    region: str
    public_ip: str
    public_key: bytes
    address_offset: int
    ipv6: bool
    state: State
    created_at: int
    expires_at: int
    bytes_in: int
    bytes_out: int
    last_handshake_at: int | None
    handshake_seen_ns: int
    quiet_since_ms: int
    quiet_boot_id: str
    counted_ms: int
    counted_until_ms: int
    counted_boot_id: str
    carries_until_ms: int
    rates: Rates | None
    reason: Reason | None
    note: str
    terminated_at: int | None
    told: str = ""  # an admin's words for the client; `note` may be older, and the operators' own
    device_id: str = ""  # of the device that it is of; "": of none

    @property
    def ending(self) -> str | None:
        """Returns why it ended, as its client is told: an admin's own words if there are any."""
        return self.told if self.reason is Reason.ADMIN and self.told and self.told not in WORDS else self.reason


class Baseline(Struct, frozen=True, gc=False):
    """Holds a peer's counters as last billed, and the boot and ifindex in which they were read."""

    boot_id: str
    ifindex: int
    rx_bytes: int
    tx_bytes: int
