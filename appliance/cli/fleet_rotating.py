"""Implements `fleet rotate-ca`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.cli import admin, output
from appliance.cli.fleet_founding import import_certificates
from appliance.cli.fleet_server import require_believed, require_hub
from appliance.domain.clock import rfc3339
from appliance.domain.errors import HostError
from appliance.fleet.hub import authorities
from appliance.fleet.hub.certificates import make_authority
from appliance.fleet.membership.identity import FleetFolder

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.cli.admin import Admin


def rotate_ca(config_file: Path | None) -> None:
    async def work(a: Admin) -> tuple[int, bool]:
        """Begins, by one file: a command that is killed has done it, or nothing. The running server goes on."""
        membership = await require_hub(a, "the fleet's authority is kept")
        require_believed(a)
        folder, now = FleetFolder(a.state.path), a.clock.host.now().wall_ms
        of_hub = folder.hub_secrets()
        if of_hub is None:
            raise HostError("this host lacks a hub's secrets: put them back from a backup")
        folder.save_hub_secrets(authorities.begin(of_hub, make_authority(membership.fleet_id, now), now))
        return now + authorities.BOTH_TRUSTED_MS, a.state.is_served()

    import_certificates()
    until, served = admin.run(config_file, work)
    output.remark(
        f"the fleet gets a new authority: the exits trust both until {rfc3339(until)}, then the new one alone"
    )
    output.remark("an exit that is not connected in that time has to leave with --force then, and to join anew")
    if not served:
        output.remark("the server is not running: start it (systemctl start wg-appliance), it tells the others")
