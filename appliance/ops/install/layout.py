"""Defines where an installed appliance is. The configuration says where its state is."""

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
HUB_USER = "wg-appliance-hub"
HUB_SERVICE, HUB_PATH = "wg-appliance-hub.service", "wg-appliance-hub-restart.path"
PROGRAM = "wg-appliance"


@dataclass(frozen=True, slots=True)
class Layout:
    """Locates the files of an installation. `root` is / except in tests."""

    root: Path = Path("/")

    @property
    def programs(self) -> Path:
        """Returns the folder with one folder per version, and the installer's records."""
        return self.root / "usr/local/lib/wg-appliance"

    @property
    def current(self) -> Path:
        """Returns the symlink to the version that runs. Replacing it switches versions."""
        return self.programs / "current"

    @property
    def record(self) -> Path:
        return self.programs / "installed.json"

    @property
    def command(self) -> Path:
        return self.root / "usr/local/bin/wg-appliance"

    @property
    def manual(self) -> Path:
        """Returns the folder of man pages for commands, which other programs use too."""
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
        """Returns the folder of the timer's backups."""
        return self.root / "var/lib/wg-appliance-backups"

    @property
    def hub(self) -> Path:
        """Returns the folder of a hub's nats-server, which is there on other hosts too, and empty."""
        return self.root / "var/lib/wg-appliance-hub"

    @property
    def hub_config(self) -> Path:
        """Returns the folder in it that the appliance writes."""
        return self.hub / "config"

    def version(self, version: str) -> Path:
        return self.programs / version

    def installed_version(self) -> str | None:
        """Returns the installed version, from `current`; None if nothing is installed."""
        return self.current.readlink().name if self.current.is_symlink() else None


def one_at_a_time(layout: Layout) -> AbstractContextManager[None]:
    """Lets one install, upgrade or uninstall run at a time. Raises HostError while another one runs."""
    folder = layout.programs.parent  # exists on every host
    return lock.locked(folder, "another install, upgrade or uninstall is running: try again later")
