"""What a service of ours may do, tried from inside: `probe.sh` in the service's unit, in place of what that runs.

It needs nothing on the machine but the service.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.install.machine import Machine

HERE = Path(__file__).parent
BUSYBOX = Path("/usr/bin/busybox")  # busybox-static of this host
PLACE = Path("/usr/local/lib/wg-appliance/probe")  # where the service may execute
PROBE = "wg-appliance-probe"
UNIT = Path(f"/etc/systemd/system/{PROBE}.service")
BAITS = ("/root/secret", "/home/secret", "/tmp/of-another")  # noqa: S108 (the machine's; to be hidden)

# How the probe is run, whatever the service may do. The directories are the service's own.
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
ExecStopPost=
ExecStart={PLACE}/busybox sh {PLACE}/probe.sh
StandardOutput=truncate:/run/{PROBE}.findings
"""
# What it mounts is gone with it.
NO_SANDBOX = """
[Service]
StateDirectory=wg-appliance
PrivateMounts=yes
"""


def findings(machine: Machine, unit: str | None) -> Mapping[str, bool]:
    """Each attempt of probe.sh, by its name, and whether it succeeded in the sandbox of `unit`.

    None: without one, as root. That leaves the machine to be thrown away.
    """
    for bait in BAITS:
        # Anybody could read them, were they not hidden (root's are hidden twice).
        machine.run("sh", "-c", f"umask 022; echo secret >{bait}")
    _write(machine, PLACE / "busybox", BUSYBOX.read_bytes())
    _write(machine, PLACE / "probe.sh", (HERE / "probe.sh").read_bytes())
    # Its drop-ins are in what `cat` prints, each after the name of its file in a remark.
    sandbox = NO_SANDBOX if unit is None else machine.run("systemctl", "cat", unit).stdout
    _write(machine, UNIT, (sandbox + DROP_IN).encode())
    try:
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", PROBE)
        lines = machine.run("cat", f"/run/{PROBE}.findings").stdout.splitlines()
    finally:
        machine.run("rm", "-rf", str(PLACE), str(UNIT), f"/run/{PROBE}.findings", *BAITS)
        machine.run("systemctl", "daemon-reload")
    return {name: answer == "yes" for name, _, answer in (line.rpartition(": ") for line in lines)}


def status(machine: Machine, unit: str) -> Mapping[str, str]:
    """/proc/PID/status of the unit's main process."""
    pid = machine.run("systemctl", "show", "--value", "--property=MainPID", unit).stdout.strip()
    lines = machine.run("cat", f"/proc/{pid}/status").stdout.splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _write(machine: Machine, path: Path, content: bytes) -> None:
    """Not for /run and /tmp, which are mounts that are not seen from here."""
    inside = machine.root / path.relative_to("/")
    inside.parent.mkdir(parents=True, exist_ok=True)
    inside.write_bytes(content)
    inside.chmod(0o755)
