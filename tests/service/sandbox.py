"""What a service of ours may do, tried from inside: `probe.sh` in the service's unit, in place of what that runs.

For a host with systemd that is made for tests (`Machine`): it needs nothing on it but the service.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

HERE = Path(__file__).parent
BUSYBOX = Path("/usr/bin/busybox")  # busybox-static of this host
PLACE = Path("/usr/local/lib/wg-appliance/probe")  # where the service may execute
PROBE = "wg-appliance-probe"
BAITS = ("/root/secret", "/home/secret", "/tmp/of-another")  # noqa: S108 (the machine's; to be hidden)

# What differs from the service is how the probe is run, not what it may do. The directories are the service's own.
DROP_IN = f"""
[Service]
Type=oneshot
WatchdogSec=0
Restart=no
RuntimeDirectoryPreserve=yes
Environment=BUSYBOX={PLACE}/busybox
ExecPaths={PLACE}
ExecStartPre=
ExecStart=
ExecStart={PLACE}/busybox sh {PLACE}/probe.sh
StandardOutput=truncate:/run/{PROBE}.findings
"""


class Machine(Protocol):
    """`root`: where its files are, seen from here."""

    @property
    def root(self) -> Path: ...

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As its root; raises where the command fails."""


def findings(machine: Machine, unit: str) -> Mapping[str, bool]:
    """Each attempt of probe.sh, by its name, and whether it succeeded in the sandbox of `unit`."""
    _lay_baits(machine)
    _write(machine, PLACE / "busybox", BUSYBOX.read_bytes())
    _write(machine, PLACE / "probe.sh", (HERE / "probe.sh").read_bytes())
    try:
        # Its drop-ins are in what `cat` prints, each after the name of its file in a remark.
        unit_text = machine.run("systemctl", "cat", unit).stdout
        _write(machine, Path(f"/etc/systemd/system/{PROBE}.service"), (unit_text + DROP_IN).encode())
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", PROBE)
        lines = machine.run("cat", f"/run/{PROBE}.findings").stdout.splitlines()
    finally:
        machine.run("rm", "-rf", str(PLACE), f"/etc/systemd/system/{PROBE}.service", f"/run/{PROBE}.findings", *BAITS)
        machine.run("systemctl", "daemon-reload")
    return {name: answer == "yes" for name, _, answer in (line.rpartition(": ") for line in lines)}


def status(machine: Machine, unit: str) -> Mapping[str, str]:
    """/proc/PID/status of the unit's main process."""
    pid = machine.run("systemctl", "show", "--value", "--property=MainPID", unit).stdout.strip()
    lines = machine.run("cat", f"/proc/{pid}/status").stdout.splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _lay_baits(machine: Machine) -> None:
    """Files that anybody could read, were they not hidden (but for root's, which are hidden twice)."""
    for bait in BAITS:
        machine.run("sh", "-c", f"umask 022; echo secret >{bait}")


def _write(machine: Machine, path: Path, content: bytes) -> None:
    """Through the machine itself: /run and /tmp of it are not under its root as seen from here."""
    inside = machine.root / path.relative_to("/")
    inside.parent.mkdir(parents=True, exist_ok=True)
    inside.write_bytes(content)
    inside.chmod(0o755)
