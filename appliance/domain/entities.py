"""The things the appliance keeps: accounts, tokens, sessions, and the words for their states.

Instants are milliseconds since the epoch (UTC) and end in `_at`; durations name their unit.

What is made anew for each peer that moved, each second, is a msgspec.Struct: to replace a field of one takes a
thirtieth of the time. They refer to nothing that refers back, so the garbage collector need not look at them.
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
    """PENDING: the row stands, the peer may not. CLOSING: decided to end, the peer may still be there."""

    PENDING = "pending"
    LIVE = "live"
    CLOSING = "closing"
    TERMINATED = "terminated"


class Reason(StrEnum):
    """Why a session ended."""

    QUOTA_EXCEEDED = "quota_exceeded"
    EXPIRED = "expired"
    IDLE = "idle"
    CLOSED = "closed"
    REPLACED = "replaced"
    ADMIN = "admin"
    DRAINED = "drained"


class Account(Struct, frozen=True, gc=False):
    id: str
    name: str
    tier: Tier
    disabled: bool
    created_at: int
    windows: Windows = UNUSED


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret; `tier` is its account's."""

    id: str
    account: str
    tier: Tier
    label: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None


class Session(Struct, frozen=True, gc=False):
    """A session as the store holds it.

    `tier` is the account's at creation, `account_tier` the account's now. `address_offset` is the client's
    place in the subnet (and, where `ipv6`, in subnet6). `bytes_in` is the client's upload.
    `handshake_seen_ns` is the peer's handshake time as last read: only its change says that one happened.
    `quiet_since_ms` is CLOCK_BOOTTIME of the boot `quiet_boot_id`: when the peer was last installed, or its
    last handshake change was seen; idleness counts from there.
    `counted_ms` is the session time counted so far, up to `counted_until_ms` of CLOCK_BOOTTIME in `counted_boot_id`.
    `rates` are those in force at creation; None where there were none, and on tiers that do not pay.
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
    rates: Rates | None
    reason: Reason | None
    note: str
    terminated_at: int | None


class Baseline(Struct, frozen=True, gc=False):
    """The counters of a peer as last billed, and the life of the interface in which they were read."""

    boot_id: str
    ifindex: int
    rx_bytes: int
    tx_bytes: int
