"""A host that boots: systemd-nspawn in the exit's network namespace of a world. Its files outlive a reboot."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tests.support.install import debian
from tests.support.tunnel.waiting import READY_SECONDS, until

if TYPE_CHECKING:
    from tests.support.tunnel.namespace import Namespace

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SERVICE = "wg-appliance.service"
# Its cgroups are below one of its own. systemd-nspawn would put them beside those of another machine.
IN_A_CGROUP = """
for mount in $(awk '$3 == "cgroup2" || ($3 == "cgroup" && $4 ~ /name=systemd/) { print $2 }' /proc/self/mounts); do
    mkdir -p "$mount/$1" && echo $$ >"$mount/$1/cgroup.procs"
done
shift
exec "$@"
"""


class Place(Protocol):
    """Where a machine stands."""

    exit: Namespace

    def renew_exit(self) -> None:
        """Makes the namespace anew, with its links and nothing else, as a reboot does."""


class Machine:
    """`root`: where its files are, seen from here."""

    def __init__(self, place: Place, root: Path, release: debian.Release) -> None:
        missing = debian.missing_tools()
        assert not missing, f"apt-get install mmdebstrap systemd-container (missing: {', '.join(missing)})"
        self._place = place
        self._name = f"wgm-{secrets.token_hex(3)}"
        self.root = root
        root.mkdir()
        debian.unpack(release, root)
        self._furnish()
        if release is debian.MACHINE:
            self._show_boot_id()
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._console = root.with_suffix(".console")

    @property
    def space(self) -> Namespace:
        return self._place.exit

    def boot(self) -> None:
        command = [
            *("sh", "-c", IN_A_CGROUP, "sh", self._name),
            *("systemd-nspawn", "--quiet", "--boot", "--directory", str(self.root), "--machine", self._name),
            *("--register=no", "--keep-unit", "--console=pipe", "--resolv-conf=off", "--timezone=off"),
            *(f"--network-namespace-path=/run/netns/{self.space.name}", "--capability=CAP_NET_ADMIN"),
            "--bind=/dev/net/tun",
            # As on a host: timedated asks whether the clock is synchronised. It cannot be set, without CAP_SYS_TIME.
            "--system-call-filter=adjtimex clock_adjtime",
        ]
        own = {"UNIFIED_CGROUP_HIERARCHY": "1", "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}
        with self._console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=os.environ | own
            )
        until(self._booted, f"the machine has booted (its console: {self._console})")

    def reboot(self) -> None:
        """Interfaces, firewall rules, sysctls and processes go, as with a real one; and it is another boot."""
        self.power_off()
        self._place.renew_exit()
        self.boot()

    def power_off(self) -> None:
        assert self._nspawn is not None
        self.try_to_run("systemctl", "poweroff")
        self._nspawn.wait(timeout=READY_SECONDS)

    def kill(self) -> None:
        """Whatever happened, nothing of it is left."""
        if self._nspawn is not None and self._nspawn.poll() is None:
            with suppress(ProcessLookupError, IndexError):
                os.kill(self._leader(), signal.SIGKILL)
            self._nspawn.wait(timeout=READY_SECONDS)
        for folder in Path("/sys/fs/cgroup").glob(f"**/{self._name}"):
            for below in sorted(folder.glob("**/"), reverse=True):
                below.rmdir()

    # -----------------------------------------------------------------------------------------------

    def run(self, *command: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """As its root; the command has to succeed."""
        done = self.try_to_run(*command, seconds=seconds)
        assert done.returncode == 0, f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def try_to_run(self, *command: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        inside = self._inside(*command)
        return subprocess.run(
            inside, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )

    def start(self, *command: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        inside = self._inside(*command)
        return subprocess.Popen(inside, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.DEVNULL)

    def _furnish(self) -> None:
        """What an image has and a bootstrapped tree lacks; and no name server, since none is to be reached.

        No timer: what begins in the middle of a test would hold apt's lock, or write files that are compared.
        """
        self._write("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
        self._write("etc/resolv.conf", "")
        shutil.rmtree(self.root / "etc/systemd/system/timers.target.wants")

    def _show_boot_id(self) -> None:
        """systemd-nspawn covers the kernel's boot id with its own. A service that has its own /proc is shown it too.

        Later releases of systemd take over what covers parts of /proc.
        """
        real, copy = "/proc/sys/kernel/random/boot_id", "/run/boot_id"
        self._write("usr/lib/tmpfiles.d/boot-id.conf", f"C {copy} - - - - {real}\n")
        drop_in = f"[Service]\nBindReadOnlyPaths={copy}:{real}\n"
        self._write(f"usr/lib/systemd/system/{SERVICE}.d/boot-id.conf", drop_in)

    def _write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", f"--target={self._leader()}", "--all", "env", "-i", f"PATH={PATH}", "LC_ALL=C", *command]

    def _leader(self) -> int:
        """The machine's own first process."""
        assert self._nspawn is not None
        pid = self._nspawn.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])

    def _booted(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, self._console.read_text(encoding="utf-8", errors="replace")
        try:
            done = self.try_to_run("systemctl", "is-system-running")
        except (IndexError, FileNotFoundError):
            return False  # it has no first process yet
        return done.stdout.strip() in ("running", "degraded")
