"""What uninstalling takes off the host once the services have ended, on either backend."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.support.tunnel.appliance_process import PROJECT
from tests.support.tunnel.world import EXIT_IP, WEB_IP, WEB_IP6

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.tunnel.appliance_process import Appliance
    from tests.support.tunnel.client import Client

LEAVE = """
import sys
from pathlib import Path
from appliance.config.load import read_settings
from appliance.ops.install.host_cleanup import clean_up
from appliance.store.state_dir import StateDir
settings = read_settings(Path(sys.argv[1]), {})
clean_up(settings, StateDir(settings.node.state_dir), print)
"""


def test_uninstalling_leaves_the_host_as_it_was(start_appliance: Callable[..., Appliance], backend: str) -> None:
    """The tunnel that was to be kept, the firewall table, the ip rules and the sysctls: all is as it was found, and
    said once; whatever PATH the caller has."""
    appliance = start_appliance(wireguard={"keep_on_exit": True})
    appliance.open(appliance.token())
    appliance.stop()
    if backend == "userspace":  # wireguard-go's unit, which has stopped, took it along
        appliance.space.run("ip", "link", "del", appliance.interface)

    def leave() -> list[str]:
        command = ("/usr/bin/env", "PATH=/nowhere", sys.executable, "-c", LEAVE, str(appliance.config))
        return appliance.space.run(*command, cwd=PROJECT).stdout.splitlines()

    said = leave()
    assert (f"interface {appliance.interface}: removed" in said) == (backend == "kernel")
    assert "nftables table inet wg_appliance: removed" in said
    assert f"ip rules of {appliance.interface}: removed" in said
    assert "sysctls: as they were when the service started" in said
    appliance.require_host_as_found()
    assert leave() == []


ADMIT = """
import sys
from pathlib import Path
from appliance.network.admission.admission import Admission
from appliance.network.admission.choice import noted
Admission(sys.argv[2], noted(Path(sys.argv[1]))).admit_all()
"""
OF_AN_EARLIER_VERSION = """
delete table inet wg_appliance
table inet wg_appliance {
  chain nat {
    type nat hook postrouting priority srcnat;
    ip saddr 10.101.0.0/24 masquerade
    ip6 saddr fd65::/16 masquerade
  }
}
"""


def test_a_version_that_marks_nothing_carries_clients_after_going_back(
    start_appliance: Callable[..., Appliance], client: Client
) -> None:
    """Once what admits marked packets only is taken away, clients' packets pass by a table without marks, both ways."""
    appliance = start_appliance(wireguard={"keep_on_exit": True})
    client.wg_quick(appliance.open(appliance.token())["wg_config"])
    assert client.address_seen() == EXIT_IP
    appliance.stop()
    appliance.space.run("nft", "-f", "-", text_input=OF_AN_EARLIER_VERSION)
    addresses = (WEB_IP, WEB_IP6)
    assert not any(map(client.ping, addresses))
    record = str(appliance.state / "admission.json")
    for _ in range(2):  # what is gone already is no fault
        appliance.space.run(sys.executable, "-c", ADMIT, record, appliance.interface, cwd=PROJECT)
    assert all(map(client.ping, addresses))
    appliance.configure(wireguard={"keep_on_exit": False})
    appliance.start()
    assert all(map(client.ping, addresses))
    appliance.stop()
