"""Where an installed appliance is. The state is elsewhere: where the configuration says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.ops import lock

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

USER = "wg-appliance"
SERVICE = "wg-appliance.service"
TUNNEL_SERVICE = "wg-appliance-tunnel.service"
PROGRAM = "wg-appliance"


@dataclass(frozen=True, slots=True)
class Layout:
    """`root` is / but in tests."""

    root: Path = Path("/")

    @property
    def programs(self) -> Path:
        """A folder a version, and what installing wrote down."""
        return self.root / "usr/local/lib/wg-appliance"

    @property
    def current(self) -> Path:
        """The symlink to the version that runs: moving it is the switch."""
        return self.programs / "current"

    @property
    def record(self) -> Path:
        return self.programs / "installed.json"

    @property
    def command(self) -> Path:
        return self.root / "usr/local/bin/wg-appliance"

    @property
    def manual(self) -> Path:
        """Where man looks for pages of commands; others' are there too."""
        return self.root / "usr/local/share/man/man1"

    @property
    def units(self) -> Path:
        return self.root / "etc/systemd/system"

    @property
    def sysctls(self) -> Path:
        return self.root / "etc/sysctl.d/60-wg-appliance.conf"

    @property
    def config(self) -> Path:
        return self.root / "etc/wg-appliance/config.toml"

    @property
    def backups(self) -> Path:
        """Where the timer's backups go."""
        return self.root / "var/lib/wg-appliance-backups"

    def version(self, version: str) -> Path:
        return self.programs / version

    def installed_version(self) -> str | None:
        """The version that `current` names; None where nothing is installed."""
        return self.current.readlink().name if self.current.is_symlink() else None


def one_at_a_time(layout: Layout) -> AbstractContextManager[None]:
    """Keep install, upgrade and uninstall out of each other's way. Raises HostError while another one works."""
    folder = layout.programs.parent  # every host has it
    return lock.locked(folder, "another install, upgrade or uninstall is at work here: try again later")
