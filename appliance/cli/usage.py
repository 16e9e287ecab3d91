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


@click.command()
@click.argument("name", type=NAME)
@output.json_option
@click.pass_obj
def usage(config_file: Path | None, name: str, as_json: bool) -> None:
    """Show what an account has used of its windows.

    Its time is that in which the tunnels of its sessions could carry: see `wg-appliance help prices`.
    """

    async def work(a: Admin) -> tuple[Account, TierSettings, Quota, int]:
        from appliance.config.plans import Terms
        from appliance.metering.usage import Quotas

        async with a.store.read() as db:
            account = await find(db, name)
        quotas = Quotas(a.store, None, Terms(a.settings), a.clock)
        return account, a.settings.tiers[account.tier], await quotas.of(account), a.now

    account, tier, quota, now = admin.run(config_file, work)
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
