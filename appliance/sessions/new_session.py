"""Makes the session that an account begins. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.domain import ids
from appliance.domain.entities import Session, State
from appliance.domain.tiers import Tier

if TYPE_CHECKING:
    from appliance.domain.clock import Moment
    from appliance.domain.entities import Account
    from appliance.domain.pricing import Rates
    from appliance.sessions.node import Node


def new_session(
    account: Account,
    node: Node,
    rates: Rates | None,
    *,
    public_key: bytes,
    address_offset: int,
    ipv6: bool,
    now: Moment,
    expires_at: int,
) -> Session:
    """Returns a session that has neither a peer nor a row yet, and has used nothing. `rates`: in force now."""
    return Session(
        id=ids.session_id(node.id_mark),
        account_id=account.id,
        account=account.name,
        tier=account.tier,
        account_tier=account.tier,
        region=node.region,
        public_ip=node.public_ip,
        public_key=public_key,
        address_offset=address_offset,
        ipv6=ipv6,
        state=State.PENDING,
        created_at=now.wall_ms,
        expires_at=expires_at,
        bytes_in=0,
        bytes_out=0,
        last_handshake_at=None,
        handshake_seen_ns=0,
        quiet_since_ms=now.boot_ms,
        quiet_boot_id=now.boot_id,
        counted_ms=0,
        counted_until_ms=now.boot_ms,
        counted_boot_id=now.boot_id,
        carries_until_ms=0,
        rates=rates if account.tier is Tier.PAID else None,
        reason=None,
        note="",
        terminated_at=None,
    )
