"""Implements `wg-appliance usage`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from appliance.cli import admin, output
from appliance.cli.account import find
from appliance.cli.parameters import NAME
from appliance.cli.usage_fields import WindowUse, usage_fields

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.cli.admin import Admin
    from appliance.config.load import TierSettings
    from appliance.domain.entities import Account
    from appliance.domain.quota import Quota
    from appliance.metering.usage import Quotas


@click.command()
@click.argument("name", type=NAME)
@output.json_option
@click.pass_obj
def usage(config_file: Path | None, name: str, as_json: bool) -> None:
    """Show what an account has used of its windows.

    Its time is that in which the tunnels of its sessions could carry: see `wg-appliance help prices`.

    On the hub of a fleet: on all exits, on the others as last reported. Elsewhere: as that exit knows it.
    """
    account, tier, quota, now = admin.run(config_file, lambda a: _read(a, name))
    if as_json:
        output.write_json(
            {
                "account": account.name,
                "tier": account.tier,
                "bytes_used": quota.bytes_used,
                "bytes_limit": quota.bytes_limit,
                "session_seconds": quota.seconds_used,
                "session_seconds_limit": quota.seconds_limit,
                "max_session_seconds": tier.max_session,
                "bytes_window_resets_at": output.rfc3339_end(quota.bytes_resets_at),
                "seconds_window_resets_at": output.rfc3339_end(quota.seconds_resets_at),
            }
        )
        return
    traffic = WindowUse(quota.bytes_used, quota.bytes_limit, (quota.bytes_resets_at - now) // 1000)
    time = WindowUse(quota.seconds_used, quota.seconds_limit, (quota.seconds_resets_at - now) // 1000)
    windows = usage_fields({"bytes": traffic, "time": time})
    output.write_fields([("account", account.name), ("tier", account.tier), *windows])


async def _read(a: Admin, name: str) -> tuple[Account, TierSettings, Quota, int]:
    from appliance.config.plans import Terms
    from appliance.metering.usage import Quotas
    from appliance.store.queries import fleet_state

    async with a.store.read() as db:
        account, row = await find(db, name), await fleet_state.read(db)
    quotas = Quotas(a.store, None, Terms(a.settings), a.clock)
    quota = await quotas.of(account)
    if row is not None and row.role == "hub":
        quota = await _of_all_exits(a, account, quotas, quota, row.node_id)
    return account, a.settings.tiers[account.tier], quota, a.now


async def _of_all_exits(a: Admin, account: Account, quotas: Quotas, known: Quota, own_node: str) -> Quota:
    """Adds what other exits have reported; `known` has what the ledger knows of them, of limited windows alone."""
    from msgspec.structs import replace

    from appliance.domain.fleet_use import WindowsUse, summed
    from appliance.store.queries import fleet_windows

    async with a.store.read() as db:
        reported = quotas.of_exits(account, await fleet_windows.of_account(db, account.id))
    used = summed({own_node: WindowsUse(known.own.bytes_used, known.own.time_used_ms)}, reported)
    return replace(
        known,
        bytes_used=max(known.bytes_used, used.total_bytes),
        time_used_ms=max(known.time_used_ms, used.time_ms),
    )
