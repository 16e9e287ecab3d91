"""The one file on other releases than the one it is built on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.install import debian
from tests.support.install.host_state import host_state, require_unchanged
from tests.support.install.installed import SERVICE, first_token, packages_to_purge
from tests.support.install.programs import NEWER
from tests.support.tunnel.ping import Ping
from tests.support.tunnel.waiting import until
from tests.support.tunnel.world import EXIT_IP

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.install.installed import Installed
    from tests.support.tunnel.client import Client


@pytest.mark.parametrize("release", [debian.NEXT], ids=[debian.NEXT.suite])
def test_the_next_debian(
    appliance: Installed, client: Client, program: Path, newer_program: Path, tmp_path: Path
) -> None:
    """On a Debian 13 without Python: installed, used, rebooted, told to read its configuration again, upgraded under
    traffic; uninstalled, all is as before."""
    machine = appliance.machine
    before = host_state(machine)
    assert not (machine.root / "usr/bin/python3").exists()
    appliance.count_often()
    session = appliance.open(first_token(appliance.install(appliance.bring(program))))
    client.wg_quick(session["wg_config"])
    assert client.address_seen() == EXIT_IP
    machine.reboot()
    appliance.ready()
    assert client.address_seen() == EXIT_IP

    config = machine.root / "etc/wg-appliance/config.toml"
    config.write_text('[meter]\ninterval = "2s"\n\n[egress]\nextra_block = ["192.0.2.0/24"]\n', encoding="utf-8")
    machine.run("systemctl", "reload", SERVICE)
    list_table = ("nft", "list", "table", "inet", "wg_appliance")
    until(lambda: "192.0.2.0/24" in machine.run(*list_table).stdout, "the blocked network is taken over")
    show_status = ("systemctl", "show", "--property=StatusText", SERVICE)
    remark = "changed, and needs a restart: meter.interval"
    until(lambda: remark in machine.run(*show_status).stdout, f"the service's status says: {remark}")

    ping = Ping(client.space, "10.101.0.1", tmp_path / "ping")
    ping.goes_on(20)
    machine.run(appliance.bring(newer_program), "upgrade", seconds=300)
    ping.goes_on(20)
    assert ping.stop().outages == []
    assert appliance.version() == NEWER
    assert appliance.command("doctor", "--json").count('"failed"') == 0

    client.down()
    said = appliance.command("uninstall", "--purge")
    machine.run(*packages_to_purge(said), "--yes", "--autoremove")
    require_unchanged(machine, before)
