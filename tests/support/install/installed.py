"""The appliance on a machine, as its operator sees it: the one file, the command, the service."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

from tests.support.tunnel.http_api import Api
from tests.support.tunnel.waiting import until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.support.install.machine import Machine
    from tests.support.tunnel.namespace import Namespace

COMMAND = "/usr/local/bin/wg-appliance"
SERVICE = "wg-appliance.service"
BACKUPS = "var/lib/wg-appliance-backups"


class Installed(Api):
    def __init__(self, machine: Machine, region: str = "local") -> None:
        super().__init__(machine.space, region)
        self.machine = machine

    @property
    def space(self) -> Namespace:
        """Another one after a reboot."""
        return self.machine.space

    @space.setter
    def space(self, _: Namespace) -> None:
        """The machine knows."""

    def bring(self, program: Path) -> str:
        """scp: the one file, in root's home."""
        shutil.copy(program, self.machine.root / "root" / program.name)
        return f"/root/{program.name}"

    def command(self, *arguments: str) -> str:
        return self.machine.run(COMMAND, *arguments).stdout

    def version(self) -> str:
        return self.command("--version").split()[-1]

    def count_often(self) -> None:
        """A configuration, before it is installed: bytes are counted every second. The self-test waits for it."""
        config = self.machine.root / "etc/wg-appliance/config.toml"
        config.parent.mkdir()
        config.write_text('[meter]\ninterval = "1s"\n\n[api]\n', encoding="utf-8")

    def install(self, program: str, *options: str) -> str:
        return self.machine.run(program, "install", *options, seconds=300).stdout

    def ready(self) -> None:
        until(lambda: self.api("GET", "/readyz").status == 200, "GET /readyz answers 200")

    def main_pid(self) -> int:
        return int(self.machine.run("systemctl", "show", "--value", "--property=MainPID", SERVICE).stdout)

    def live_sessions(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self.command("session", "list", "--live", "--json"))["sessions"]
        return listed


def first_token(output: str) -> str:
    found = re.search(r"^token of the account owner.*: (\S+)$", output, re.MULTILINE)
    assert found is not None, output
    return found[1]


def packages_to_purge(output: str) -> list[str]:
    """The command that uninstall names."""
    found = re.search(r"apt-get purge .*$", output, re.MULTILINE)
    assert found is not None, output
    return found[0].split()


def owners(machine: Machine, folder: str) -> set[str]:
    """The user, the mode and the kind of all that is in this folder of the machine, and of itself."""
    return set(machine.run("find", f"/{folder}", "-printf", "%u %m %y\\n").stdout.splitlines())


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Exit status 1, and one line on stderr, which is returned."""
    assert done.returncode == 1, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]
