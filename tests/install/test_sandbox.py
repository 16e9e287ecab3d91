"""What the installed services may do, and what they may not: tried from inside their sandboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.install import sandbox

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.install.installed import Installed

SERVICE, TUNNEL = "wg-appliance.service", "wg-appliance-tunnel.service"
NET_ADMIN = 1 << 12  # linux/capability.h

# All that works of what probe.sh tries; the rest has to fail.
ALLOWED = {
    SERVICE: {
        *("execute its own program", "execute nft"),
        *("write /var/lib/wg-appliance", "write /run/wg-appliance", "read the configuration"),
        *("read the boot id", "set net.ipv4.ip_forward", "ask timedated whether the clock is synchronised"),
    },
    TUNNEL: {"execute its own program", "write /run/wireguard", "open /dev/net/tun"},
}
# Some of the rest, which a service of root's without a sandbox can do: it is the sandbox that says no.
DENIED = {
    *("execute /bin/sh", "execute a copy in /tmp", "execute a copy in /dev/shm", "make a set-user-id file"),
    *("write /etc", "write /var/lib", "write /usr/local/lib/wg-appliance", "read /root", "read /home"),
    *("see other users' processes", "mount", "make a namespace", "change the root", "become root"),
}


def test_sandbox(appliance: Installed, program: Path, backend: str) -> None:
    """No other capability, nothing written but its state, no home, no shell; and the same for wireguard-go."""
    machine = appliance.machine
    appliance.install(appliance.bring(program))
    for unit in (SERVICE, TUNNEL) if backend == "userspace" else (SERVICE,):
        status = sandbox.status(machine, unit)
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == NET_ADMIN, f"{unit}: {kind}"
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"  # a filter
        assert "0" not in status["Uid"].split()

        found = sandbox.findings(machine, unit)
        assert {name for name, succeeded in found.items() if succeeded} == ALLOWED[unit]
    appliance.ready()
    found = sandbox.findings(machine, None)
    assert {name for name in DENIED if not found[name]} == set()
