"""Says why a device that a command has just changed may not connect now."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from appliance.cli import output
from appliance.cli.device_fields import circumstances
from appliance.config.plans import Terms
from appliance.domain.device import Condition, DeviceState, HeldReason, decide
from appliance.domain.entities import State
from appliance.domain.tiers import is_limited
from appliance.metering.usage import Quotas
from appliance.store.queries import accounts as account_rows
from appliance.store.queries import node as node_row
from appliance.store.queries import sessions as session_rows

if TYPE_CHECKING:
    import aiosqlite

    from appliance.cli.admin import Admin
    from appliance.domain.device import Device
    from appliance.domain.quota import Quota


async def why(db: aiosqlite.Connection, a: Admin, d: Device) -> str | None:
    """Returns the remark on a device as it is with the change, or None if it may connect.

    Reads in the change's transaction: once that is stored, nothing can fail that would lose a new private key.
    """
    found = await _condition(db, a, d)
    if found.has_peer:
        return None
    return f"device {d.account}/{d.name} may not connect now: {_words(found, d, a)}"


async def _condition(db: aiosqlite.Connection, a: Admin, d: Device) -> Condition:
    drained, used = (await node_row.read(db)).drained, await _used(db, a, d)
    sessions = await session_rows.unfinished_of(db, d.account_id)
    own = next((s for s in sessions if s.device_id == d.id and s.state is State.LIVE), None)
    live = sum(s.state is State.LIVE for s in sessions)
    return decide(circumstances(a, d, own, used, live, drained))


async def _used(db: aiosqlite.Connection, a: Admin, d: Device) -> Quota | None:
    limited = is_limited(a.settings.tiers[d.account_tier])
    owner = await account_rows.by_id(db, d.account_id) if limited else None
    return None if owner is None else await Quotas(a.store, None, Terms(a.settings), a.clock).as_of(db, owner)


def _words(found: Condition, d: Device, a: Admin) -> str:
    account = f"account {d.account}"
    if found.state is DeviceState.PAUSED:
        return f"it is paused (wg-appliance device resume {shlex.quote(f'{d.account}/{d.name}')})"
    if found.held_reason is HeldReason.ACCOUNT_DISABLED:
        return f"{account} is disabled (wg-appliance account set {shlex.quote(d.account)} --enabled)"
    if found.held_reason is HeldReason.DRAINED:
        return "the exit is drained (wg-appliance node resume)"
    if found.held_reason is HeldReason.QUOTA_EXCEEDED and found.held_until is not None:
        return f"its quota is used up until {output.rfc3339_end(found.held_until)}"
    if found.held_reason is HeldReason.LIVE_SESSION_LIMIT:
        most = a.settings.tiers[d.account_tier].max_live_sessions
        return f"{account} has as many live sessions as it may (max_live_sessions of [tiers.{d.account_tier}]: {most})"
    return str(found.held_reason)
