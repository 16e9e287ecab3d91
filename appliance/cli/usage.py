"""Implements `wg-appliance usage`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from appliance.cli import admin, output
from appliance.cli.account import find
from appliance.cli.parameters import NAME

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
    """Show what an account has used of its windows."""

    async def work(a: Admin) -> tuple[Account, TierSettings, Quota]:
        from appliance.config.plans import Terms
        from appliance.domain.clock import HostClock
        from appliance.metering.usage import Quotas

        async with a.store.read() as db:
            found = await find(db, name)
        quotas = Quotas(a.store, None, Terms(a.settings), HostClock())
        return found, a.settings.tiers[found.tier], await quotas.of(found)

    found, tier, quota = admin.run(config_file, work)
    if as_json:
        output.write_json(
            {
                "account": found.name,
                "tier": found.tier,
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
    output.write_fields(
        [
            ("account", found.name),
            ("tier", found.tier),
            ("bytes", _of(output.size(quota.bytes_used), quota.bytes_limit and output.size(quota.bytes_limit))),
            ("bytes until", output.rfc3339_end(quota.bytes_resets_at)),
            ("time", _of(f"{quota.seconds_used} s", quota.seconds_limit and f"{quota.seconds_limit} s")),
            ("time until", output.rfc3339_end(quota.seconds_resets_at)),
        ]
    )


def _of(used: str, limit: str | int) -> str:
    return f"{used} of {limit}" if limit else f"{used}, unmetered"
