"""Takes away the IPv4 forwarding switch that earlier versions set at each boot, and gives back its value."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.network.firewall import nft
from appliance.network.firewall.forwarding import IP_FORWARD
from appliance.network.firewall.other_routing import relying
from appliance.network.firewall.sysctl_paths import OFF, ON
from appliance.network.programs import ROOT_PATH, ProgramFailed
from appliance.ops.install.step import Removal

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.ops.install.record import Record

# Where systemd-sysctl reads, sysctl.d(5).
FOLDERS = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d")
SWITCHED_ON = re.compile(r"^\s*-?net[./]ipv4[./](?:ip_forward|conf[./]all[./]forwarding)\s*=\s*1\s*$", re.MULTILINE)


def _listing() -> str:
    return nft.listing(environ={**os.environ, "PATH": ROOT_PATH})


@dataclass(frozen=True, slots=True)
class NoBootForwarding(Removal):
    """Removes the file. The switch goes off unless this host was a router before, or something else needs it.

    The running server keeps its clients' traffic going.
    """

    file: Path
    record: Record
    root: Path = Path("/")
    listing: Callable[[], str] = _listing

    @property
    def what(self) -> str:
        return str(self.file)

    def change(self) -> str | None:
        if not self.file.exists():
            return None
        kept_by = self._kept_by()
        left = "set to 0" if kept_by is None else f"stays {self._now()}: {kept_by}"
        return f"removed; net.ipv4.ip_forward {left}"

    def apply(self) -> None:
        kept_by = self._kept_by()
        self.file.unlink()
        if kept_by is None:
            self._switch.write_text(OFF, encoding="ascii")

    def remove(self) -> bool:
        if not self.file.exists():
            return False
        self.apply()
        return True

    @property
    def _switch(self) -> Path:
        return self.root / "proc/sys" / IP_FORWARD

    def _now(self) -> str:
        return self._switch.read_text(encoding="ascii").strip()

    def _kept_by(self) -> str | None:
        """Returns why the switch is left as it is; None: nothing else needs it."""
        if self._now() != ON:
            return "it is off"
        if self.record.sysctls.get(IP_FORWARD) != OFF:
            return "it was on before the installation"
        if (other := self._other_file()) is not None:
            return f"{other} sets it"
        try:
            needing = relying(self.listing())
        except (ProgramFailed, ValueError, LookupError):
            return "what other firewalls forward cannot be read"
        return None if needing is None else f"{needing} needs it"

    def _other_file(self) -> Path | None:
        files = [path for folder in FOLDERS for path in sorted((self.root / folder).glob("*.conf"))]
        for path in (self.root / "etc/sysctl.conf", *files):
            # A link to /dev/null hides a file of the same name (sysctl.d(5)).
            if path == self.file or not path.is_file():
                continue
            if SWITCHED_ON.search(path.read_text(encoding="utf-8", errors="replace")):
                return path
        return None
