"""What uninstalling takes off the host once the services have ended, on either backend."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.tunnel.appliance_process import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.tunnel.appliance_process import Appliance

LEAVE = """
import sys
from pathlib import Path
from appliance.config.load import read_settings
from appliance.ops.install.host_cleanup import clean_up
from appliance.store.state_dir import StateDir
settings = read_settings(Path(sys.argv[1]), {})
clean_up(settings, StateDir(settings.node.state_dir), print)
"""


@pytest.mark.under_kernel
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
