"""A session like any other, for tests of what is decided about one."""

from __future__ import annotations

from appliance.domain.entities import Session, State
from appliance.domain.tiers import Tier

A_SESSION = Session(
    id="ses_1",
    account_id="acc_1",
    account="ada",
    tier=Tier.FREE,
    account_tier=Tier.FREE,
    region="fsn",
    public_ip="192.0.2.1",
    public_key=b"\x01" * 32,
    address_offset=2,
    ipv6=True,
    state=State.LIVE,
    created_at=0,
    expires_at=10_000_000,
    bytes_in=0,
    bytes_out=0,
    last_handshake_at=None,
    handshake_seen_ns=0,
    quiet_since_ms=1_000,
    quiet_boot_id="boot",
    counted_ms=0,
    counted_until_ms=77_000,
    counted_boot_id="boot",
    carries_until_ms=2**53,
    rates=None,
    reason=None,
    note="",
    terminated_at=None,
)
