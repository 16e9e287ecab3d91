"""A device like any other, for tests of what is decided about one, and of the store."""

from __future__ import annotations

from appliance.domain.device import Device
from appliance.domain.tiers import Tier

A_DEVICE = Device(
    id="dev_1",
    account_id="acc_1",
    account="ada",
    account_tier=Tier.FREE,
    account_disabled=False,
    name="phone",
    region="fsn",
    public_key=b"\x01" * 32,
    address_offset=2,
    ipv6=True,
    created_at=1_000,
    paused=False,
    endpoint="192.0.2.1:51820",
)
